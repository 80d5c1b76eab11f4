use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::sources;
use crate::config::check_files;

/// The message of the only error about a file with these bytes, without the path.
fn why(prepare: impl FnOnce(&std::path::Path)) -> Option<String> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("x.toml");
    prepare(&path);
    let errors = sources(&[]).with_file(Some(path)).load().err()?;
    assert_eq!(errors.problems().len(), 1, "{errors}");
    Some(errors.problems()[0].message.clone())
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_error() {
    assert_eq!(
        why(|_| ()).unwrap(),
        "cannot be read: no such file or directory"
    );
    assert_eq!(
        why(|path| fs::create_dir(path).unwrap()).unwrap(),
        "cannot be read: is a directory"
    );
    assert_eq!(
        why(|path| fs::write(path, b"[log]\nlevel = \"\xff\"\n").unwrap()).unwrap(),
        "cannot be read: not UTF-8 in line 2"
    );
    assert_eq!(
        why(|path| fs::write(path, "#".repeat((1 << 20) + 1)).unwrap()).unwrap(),
        "cannot be read: longer than 1048576 bytes"
    );
    assert_eq!(why(|path| fs::write(path, "").unwrap()), None);
}

#[test]
fn a_file_without_permission() {
    let refused = why(|path| {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    });
    // root may read everything.
    assert!(refused.is_none_or(|why| why == "cannot be read: permission denied"));
}

#[test]
fn named_files_are_checked_apart() {
    let directory = TempDir::new().unwrap();
    let cert = directory.path().join("cert.pem");
    fs::write(&cert, "-----BEGIN CERTIFICATE-----").unwrap();
    let cert = cert.to_str().unwrap();
    let key = directory.path().join("key.pem");
    let environment = [
        ("TOKENGLASS_SERVER__TLS_CERT", cert),
        ("TOKENGLASS_SERVER__TLS_KEY", key.to_str().unwrap()),
        (
            "TOKENGLASS_UPSTREAM__CA_FILE",
            directory.path().to_str().unwrap(),
        ),
    ];
    let loaded = sources(&environment).load().unwrap();
    let errors = check_files(&loaded).unwrap_err().to_string();
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 2, "{errors}");
    assert!(lines[0].starts_with("TOKENGLASS_SERVER__TLS_KEY: server.tls_key: cannot read "));
    assert!(lines[0].ends_with("key.pem: no such file or directory"));
    assert!(lines[1].ends_with(": is a directory"));

    fs::write(&key, "").unwrap();
    assert!(
        check_files(&loaded)
            .unwrap_err()
            .to_string()
            .contains("key.pem is empty")
    );
    assert!(check_files(&sources(&[]).load().unwrap()).is_ok());
}
