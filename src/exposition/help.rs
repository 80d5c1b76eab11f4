//! The text of `# HELP`.

/// Escapes line feeds and backslashes, and for OpenMetrics quotes too.
pub(crate) fn escape(help: &str, quotes: bool, out: &mut Vec<u8>) {
    for byte in help.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if quotes => out.extend_from_slice(b"\\\""),
            _ => out.push(byte),
        }
    }
}
