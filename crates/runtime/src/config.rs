//! Configuration by environment variables. Layers, the later one wins: the defaults embedded in
//! the program, `.env` and `.env.local` of the working folder (development only), the
//! environment. A variable that is set to nothing counts as not set.

mod encryption;
mod layers;
mod servers;

use std::fmt::{self, Display};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

use layers::Layers;
pub use servers::{DatabaseConfig, HttpConfig, OpsConfig, RedisConfig};

/// What is wrong with the configuration: which variable, and why; never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    /// The variable's name, as the operator writes it.
    pub variable: &'static str,
    /// One line that says what is wrong.
    pub problem: String,
}

impl ConfigError {
    /// An error about `variable`. `problem` must not contain its value, which may be a secret.
    pub fn new(variable: &'static str, problem: impl Display) -> Self {
        Self {
            variable,
            problem: problem.to_string(),
        }
    }
}

/// Where the process runs: it decides the defaults and how strict the checks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A developer's machine: local addresses are allowed, `.env` files are read.
    Development,
    /// Everything else, and what is assumed when nobody says.
    Production,
}

impl Mode {
    /// The mode's name as `APP_ENV` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Development => "development",
            Mode::Production => "production",
        }
    }
}

impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The configuration of a process, read once at start.
#[derive(Clone)]
pub struct Env {
    mode: Mode,
    layers: Layers,
}

impl Env {
    /// Reads the environment of the process, and the `.env` files in development.
    pub fn load() -> Result<Env, ConfigError> {
        Self::load_with("")
    }

    /// Like [`Env::load`], with the defaults of a service (TOML, laid out as this crate's
    /// `defaults.toml`) over those of the runtime.
    pub fn load_with(defaults: &str) -> Result<Env, ConfigError> {
        Layers::of_process(defaults).map(Self::from_layers)
    }

    /// Reads the pairs given and the defaults, and nothing of the process: for tests.
    pub fn from_pairs<I, K, V>(pairs: I) -> Result<Env, ConfigError>
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<String>,
        V: Into<String>,
    {
        let pairs = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        Layers::of_pairs("", pairs).map(Self::from_layers)
    }

    fn from_layers((mode, layers): (Mode, Layers)) -> Self {
        Self { mode, layers }
    }

    /// Development or production.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The variable's value, or `None` when it is not set.
    pub fn optional<T>(&self, name: &'static str) -> Result<Option<T>, ConfigError>
    where
        T: FromStr<Err: Display>,
    {
        self.text(name)?.map(|text| parse(name, &text)).transpose()
    }

    /// The variable's value; an error when it is not set.
    pub fn required<T>(&self, name: &'static str) -> Result<T, ConfigError>
    where
        T: FromStr<Err: Display>,
    {
        self.optional(name)?
            .ok_or_else(|| ConfigError::new(name, "is not set"))
    }

    /// The variable's value, or `default` when it is not set.
    pub fn or<T>(&self, name: &'static str, default: T) -> Result<T, ConfigError>
    where
        T: FromStr<Err: Display>,
    {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// A time in whole milliseconds.
    pub fn millis(&self, name: &'static str, default: Duration) -> Result<Duration, ConfigError> {
        let millis: Option<u64> = self.optional(name)?;
        Ok(millis.map_or(default, Duration::from_millis))
    }

    /// A list with commas between its items; empty when the variable is not set.
    pub fn list<T>(&self, name: &'static str) -> Result<Vec<T>, ConfigError>
    where
        T: FromStr<Err: Display>,
    {
        let text = self.text(name)?.unwrap_or_default();
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        items.map(|item| parse(name, item)).collect()
    }

    /// A value that must never be printed.
    pub fn secret(&self, name: &'static str) -> Result<Option<SecretString>, ConfigError> {
        Ok(self.text(name)?.map(SecretString::from))
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        self.layers.text(name)
    }
}

/// Shows no values, since some are secrets.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

fn parse<T>(name: &'static str, text: &str) -> Result<T, ConfigError>
where
    T: FromStr<Err: Display>,
{
    text.trim().parse().map_err(|error| {
        let full = std::any::type_name::<T>();
        let kind = full.rsplit("::").next().unwrap_or(full);
        ConfigError::new(name, format!("not a valid {kind}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use secrecy::ExposeSecret;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn production_is_assumed_when_nobody_says() {
        assert_eq!(env(&[]).mode(), Mode::Production);
        assert_eq!(
            env(&[("APP_ENV", ""), ("NODE_ENV", "")]).mode(),
            Mode::Production
        );
    }

    #[test]
    fn node_env_speaks_only_when_app_env_does_not() {
        assert_eq!(
            env(&[("NODE_ENV", "development")]).mode(),
            Mode::Development
        );
        let both = env(&[("APP_ENV", "production"), ("NODE_ENV", "development")]);
        assert_eq!(both.mode(), Mode::Production);
    }

    #[test]
    fn an_unknown_mode_names_the_variable_that_said_it() {
        let error = Env::from_pairs([("APP_ENV", "staging")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "APP_ENV: must be development or production"
        );
        assert_eq!(
            Env::from_pairs([("NODE_ENV", "test")])
                .unwrap_err()
                .variable,
            "NODE_ENV"
        );
    }

    #[test]
    fn a_variable_set_to_nothing_counts_as_not_set() {
        let env = env(&[("PORT", ""), ("SHUTDOWN_GRACE", "  ")]);
        assert_eq!(env.optional::<u16>("PORT").unwrap(), None);
        let grace = env.millis("SHUTDOWN_GRACE", Duration::ZERO).unwrap();
        assert_eq!(
            grace,
            Duration::from_secs(25),
            "the embedded default shows through"
        );
    }

    #[test]
    fn a_bad_value_names_its_variable_and_is_not_repeated() {
        let env = env(&[("PORT", "hunter2")]);
        let error = env.required::<u16>("PORT").unwrap_err();
        assert_eq!(
            error.to_string(),
            "PORT: not a valid u16: invalid digit found in string"
        );
        assert_eq!(
            env.required::<String>("DATABASE_URL")
                .unwrap_err()
                .to_string(),
            "DATABASE_URL: is not set"
        );
    }

    #[test]
    fn a_list_may_have_spaces_and_empty_items() {
        let env = env(&[("A", " 127.0.0.1, ::1 ,,")]);
        let list: Vec<IpAddr> = env.list("A").unwrap();
        assert_eq!(list.len(), 2);
        assert!(env.list::<IpAddr>("B").unwrap().is_empty());
        assert_eq!(env.list::<u8>("A").unwrap_err().variable, "A");
    }

    #[test]
    fn a_secret_is_read_whole_and_never_shown() {
        let env = env(&[("TOKEN", "s3cret, really")]);
        assert_eq!(
            env.secret("TOKEN").unwrap().unwrap().expose_secret(),
            "s3cret, really"
        );
        assert!(!format!("{env:?} {:?}", env.secret("TOKEN")).contains("s3cret"));
    }
}
