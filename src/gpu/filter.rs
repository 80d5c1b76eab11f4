//! Which GPUs are ours.

/// `gpu.devices`, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Every one that NVML shows.
    All,
    /// Those named here: UUIDs, beginnings of UUIDs, or indices.
    Only(Vec<String>),
}

/// Fewer characters than this are no beginning of a UUID: `GPU-` and four more.
const BEGINNING: usize = 8;

impl Filter {
    /// `devices` as configured; `visible` is NVIDIA_VISIBLE_DEVICES.
    pub(super) fn new(devices: &[String], visible: Option<&str>) -> Self {
        let mut only = Vec::new();
        for device in devices {
            match device.as_str() {
                "all" => return Self::All,
                "container" => match visible.map(str::trim) {
                    // Nobody has said anything, or the runtime has put exactly ours in.
                    None | Some("" | "all" | "void" | "none") => return Self::All,
                    Some(list) => only.extend(list.split(',').map(|word| word.trim().to_owned())),
                },
                uuid => only.push(uuid.to_owned()),
            }
        }
        Self::Only(only)
    }

    /// Whether a GPU passes.
    pub(super) fn has(&self, index: u32, uuid: &str) -> bool {
        let Self::Only(words) = self else {
            return true;
        };
        words.iter().any(|word| {
            // `0:1` is instance 1 of GPU 0.
            let gpu = word.split(':').next().unwrap_or(word);
            gpu.parse() == Ok(index) || (word.len() >= BEGINNING && uuid.starts_with(word.as_str()))
        })
    }

    /// Whether a GPU instance passes, by the names of its compute instances: with any MIG-… in the list, only those that it has.
    pub(super) fn has_instance(&self, uuids: &[String]) -> bool {
        let Self::Only(words) = self else {
            return true;
        };
        let mut named = words
            .iter()
            .filter(|word| word.starts_with("MIG-"))
            .peekable();
        named.peek().is_none() || named.any(|word| uuids.contains(word))
    }

    /// Whether MIG instances are named.
    pub(super) fn names_instances(&self) -> bool {
        matches!(self, Self::Only(words) if words.iter().any(|word| word.starts_with("MIG-")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(devices: &[&str], visible: Option<&str>) -> Filter {
        let devices: Vec<_> = devices.iter().map(|&device| device.to_owned()).collect();
        Filter::new(&devices, visible)
    }

    #[test]
    fn by_uuid_index_and_environment() {
        let uuid = "GPU-4f2c1d7a-0000-0000-0000-000000000001";
        assert!(filter(&["all"], Some("7")).has(3, uuid));
        assert!(filter(&[uuid], None).has(3, uuid));
        assert!(filter(&["GPU-4f2c"], None).has(3, uuid));
        assert!(
            !filter(&["GPU-"], None).has(3, uuid),
            "too short to mean one"
        );
        assert!(!filter(&["GPU-5"], None).has(3, uuid));
        for visible in [None, Some(""), Some("all"), Some("void")] {
            assert!(filter(&["container"], visible).has(3, uuid));
        }
        assert!(filter(&["container"], Some("0,3")).has(3, uuid));
        assert!(!filter(&["container"], Some("0,1")).has(3, uuid));
        assert!(filter(&["container"], Some("3:0")).has(3, uuid));
        assert!(filter(&["container"], Some(uuid)).has(3, uuid));
    }

    #[test]
    fn instances_by_name() {
        let filter = filter(&["container"], Some("MIG-a"));
        let (a, b) = ("MIG-a".to_owned(), "MIG-b".to_owned());
        assert!(filter.names_instances() && filter.has_instance(std::slice::from_ref(&a)));
        assert!(!filter.has_instance(std::slice::from_ref(&b)));
        assert!(filter.has_instance(&[b.clone(), a]));
        assert!(Filter::All.has_instance(&[b]));
    }
}
