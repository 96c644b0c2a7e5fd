//! The keys for encryption at rest. A production process must be given them; a developer's first
//! service makes one, and all services of that working folder then share it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::SecretString;

use super::{ConfigError, Env, Mode};

const VARIABLE: &str = "ENCRYPTION_KEYS";
const FILE: &str = ".run/encryption_keys";

impl Env {
    /// `ENCRYPTION_KEYS`: `id:base64,…`, newest first. Not set in development, they are read from
    /// `.run/encryption_keys`, which is made with a random key when it is not there.
    pub fn encryption_keys(&self) -> Result<SecretString, ConfigError> {
        match (self.secret(VARIABLE)?, self.mode()) {
            (Some(keys), _) => Ok(keys),
            (None, Mode::Production) => Err(ConfigError::new(VARIABLE, "is not set")),
            (None, Mode::Development) => read_or_make(Path::new(FILE)).map_err(|error| {
                ConfigError::new(VARIABLE, format_args!("is not set, and {FILE}: {error}"))
            }),
        }
    }
}

fn read_or_make(path: &Path) -> io::Result<SecretString> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
        other => return other.map(|keys| keys.trim().into()),
    }
    fs::read_to_string(path).map(|keys| keys.trim().into())
}

/// Two services that start at once must end up with one key: the file appears whole, or was there.
fn make(path: &Path) -> io::Result<()> {
    let mut key = [0; 32];
    SysRng.try_fill_bytes(&mut key).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let draft = path.with_extension(std::process::id().to_string());
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?
        .write_all(format!("dev:{}\n", BASE64_STANDARD.encode(key)).as_bytes())?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn production_does_not_start_without_keys() {
        let env = Env::from_pairs([("APP_ENV", "production")]).unwrap();
        assert_eq!(env.encryption_keys().unwrap_err().variable, VARIABLE);
    }

    #[test]
    fn the_key_that_development_makes_is_made_once_and_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".run/encryption_keys");
        let first = read_or_make(&path).unwrap();
        assert_eq!(
            first.expose_secret(),
            read_or_make(&path).unwrap().expose_secret()
        );
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
