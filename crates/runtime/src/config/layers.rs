use std::collections::{BTreeMap, HashSet};
use std::env;
use std::path::Path;

use config::{Config, File, FileFormat, Map, Source, Value};

use super::{ConfigError, Mode};

/// The reference of the variables that the runtime itself reads.
const DEFAULTS: &str = include_str!("defaults.toml");

/// All layers, merged.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    merged: Config,
    /// Variables whose value is not UTF-8: an error only for who asks for one.
    unreadable: HashSet<String>,
}

impl Layers {
    /// The environment over the `.env` files (development only) over the defaults.
    pub(super) fn of_process(defaults: &str) -> Result<(Mode, Self), ConfigError> {
        let mut unreadable = HashSet::new();
        let mut environment = BTreeMap::new();
        for (name, value) in env::vars_os() {
            let Ok(name) = name.into_string() else {
                continue;
            };
            match value.into_string() {
                Ok(value) => drop(environment.insert(name, value)),
                Err(_) => drop(unreadable.insert(name)),
            }
        }
        let mode = mode(&environment)?;
        let mut overlays = Vec::new();
        if mode == Mode::Development {
            overlays.push(dotenv(Path::new("."), ".env")?);
            overlays.push(dotenv(Path::new("."), ".env.local")?);
        }
        overlays.push(environment);
        let merged = merge(mode, defaults, overlays);
        Ok((mode, Self { merged, unreadable }))
    }

    /// The pairs over the defaults.
    pub(super) fn of_pairs(
        defaults: &str,
        pairs: BTreeMap<String, String>,
    ) -> Result<(Mode, Self), ConfigError> {
        let mode = mode(&pairs)?;
        let merged = merge(mode, defaults, vec![pairs]);
        Ok((
            mode,
            Self {
                merged,
                unreadable: HashSet::new(),
            },
        ))
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        if self.unreadable.contains(name) {
            return Err(ConfigError::new(name, "is not UTF-8"));
        }
        Ok(self.merged.get_string(name).ok())
    }
}

fn mode(environment: &BTreeMap<String, String>) -> Result<Mode, ConfigError> {
    for name in ["APP_ENV", "NODE_ENV"] {
        match environment.get(name).map(|value| value.trim()) {
            None | Some("") => {}
            Some("development") => return Ok(Mode::Development),
            Some("production") => return Ok(Mode::Production),
            Some(_) => return Err(ConfigError::new(name, "must be development or production")),
        }
    }
    Ok(Mode::Production)
}

/// The pairs of a `.env` file; none when there is no such file.
fn dotenv(folder: &Path, file: &'static str) -> Result<BTreeMap<String, String>, ConfigError> {
    // A parse error of dotenvy repeats the line, and the line may be a secret.
    let problem = |error| match error {
        dotenvy::Error::LineParse(_, _) => {
            ConfigError::new(file, "has a line that is not NAME=value")
        }
        other => ConfigError::new(file, format!("cannot be read: {other}")),
    };
    match dotenvy::from_path_iter(folder.join(file)) {
        Ok(pairs) => pairs.collect::<Result<_, _>>().map_err(problem),
        Err(error) if error.not_found() => Ok(BTreeMap::new()),
        Err(error) => Err(problem(error)),
    }
}

fn merge(mode: Mode, defaults: &str, overlays: Vec<BTreeMap<String, String>>) -> Config {
    let mut builder = Config::builder();
    for text in [DEFAULTS, defaults] {
        let read = Config::builder()
            .add_source(File::from_str(text, FileFormat::Toml))
            .build()
            .expect("the embedded defaults are valid TOML");
        let of_mode = read.get_table(mode.as_str()).unwrap_or_default();
        builder = builder.add_source(read).add_source(Layer(of_mode));
    }
    for overlay in overlays {
        let set = overlay
            .into_iter()
            .filter(|(name, value)| is_plain(name) && !value.trim().is_empty());
        builder = builder.add_source(Layer(
            set.map(|(name, value)| (name, value.into())).collect(),
        ));
    }
    builder.build().expect("maps of strings always merge")
}

/// Some shells export names with dots and brackets, which `config` would read as paths.
fn is_plain(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Variables under their own names: `config`'s own environment source changes their case.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(mode: Mode, defaults: &str, overlays: Vec<BTreeMap<String, String>>) -> Layers {
        Layers {
            merged: merge(mode, defaults, overlays),
            unreadable: HashSet::new(),
        }
    }

    #[test]
    fn the_later_layer_wins_and_nothing_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".env"), "A=env\nB=env\nC='with space'\n").unwrap();
        fs::write(folder.path().join(".env.local"), "B=local\nC=\n").unwrap();
        let layers = read(
            Mode::Development,
            "A = 'default'\nD = 8080\n[development]\nE = 'dev'\n[production]\nE = 'prod'\n",
            vec![
                dotenv(folder.path(), ".env").unwrap(),
                dotenv(folder.path(), ".env.local").unwrap(),
                BTreeMap::from([
                    ("D".to_owned(), "9".to_owned()),
                    ("A.x[0]".to_owned(), "?".to_owned()),
                ]),
            ],
        );
        let text = |name| layers.text(name).unwrap().unwrap_or_default();
        assert_eq!(
            [text("A"), text("B"), text("C")],
            ["env", "local", "with space"]
        );
        assert_eq!([text("D"), text("E"), text("F")], ["9", "dev", ""]);
    }

    #[test]
    fn a_missing_env_file_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(dotenv(folder.path(), ".env").unwrap().is_empty());
    }

    #[test]
    fn a_broken_env_file_is_named_and_its_line_is_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".env"), "TOKEN=fine\nhunter2 hunter3\n").unwrap();
        let error = dotenv(folder.path(), ".env").unwrap_err();
        assert_eq!(error.to_string(), ".env: has a line that is not NAME=value");
    }

    #[test]
    fn a_value_that_is_no_utf8_is_an_error_for_who_asks() {
        let mut layers = read(Mode::Production, "", vec![]);
        layers.unreadable.insert("PORT".to_owned());
        assert_eq!(
            layers.text("PORT").unwrap_err().to_string(),
            "PORT: is not UTF-8"
        );
        assert_eq!(layers.text("OPS_PORT").unwrap(), None);
    }
}
