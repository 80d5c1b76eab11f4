//! Which families are wanted.

use super::family::Family;

/// `engine.include` and `engine.exclude`: names, with `*` for anything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only what matches one of these; all, if there are none.
    pub include: Vec<String>,
    /// And none of these.
    pub exclude: Vec<String>,
}

impl Filter {
    /// Whether a family of this name is wanted. Counters have their `_total`.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        let any = |patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
        };
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// Keeps what is wanted.
    pub fn apply(&self, families: &mut Vec<Family>) {
        families.retain(|family| self.wants(&family.name));
    }
}

/// Without recursion: a pattern with many stars costs no more than its length times the name's.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut again: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), name.get(n)) {
            (Some(b'*'), _) => {
                again = Some((p + 1, n));
                p += 1;
            }
            (Some(wanted), Some(found)) if wanted == found => (p, n) = (p + 1, n + 1),
            (None, None) => return true,
            _ => match again {
                Some((star, from)) if from < name.len() => {
                    again = Some((star, from + 1));
                    (p, n) = (star, from + 1);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name, fits) in [
            ("vllm:*", "vllm:num_requests_running", true),
            ("vllm:*", "http_requests_total", false),
            ("*_created", "vllm:prompt_tokens_created", true),
            ("*", "", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("", "x", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                fits,
                "{pattern} {name}"
            );
        }
    }
}
