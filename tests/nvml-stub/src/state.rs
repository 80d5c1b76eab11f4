//! The file.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Code, INVALID, NOT_SUPPORTED};

/// How often a call that is made to wait looks whether it still should.
const SLICE: Duration = Duration::from_millis(10);

type Version = (u64, i64, i64, u64);

static CACHE: Mutex<Option<(Version, Arc<Value>)>> = Mutex::new(None);

/// What the file says now.
pub(crate) fn read() -> Arc<Value> {
    let nothing = || Arc::new(Value::Null);
    let Some(path) = std::env::var_os("NVML_STUB_STATE") else {
        return nothing();
    };
    let Ok(meta) = std::fs::metadata(&path) else {
        return nothing();
    };
    let version = (meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len());
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, value)) = &*cache
        && *known == version
    {
        return Arc::clone(value);
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let value: Arc<Value> = Arc::new(serde_json::from_str(&text).unwrap_or_default());
    *cache = Some((version, Arc::clone(&value)));
    value
}

/// A GPU or a MIG instance of it, as a handle: never null.
#[derive(Clone, Copy)]
pub(crate) struct Handle {
    pub(crate) gpu: usize,
    pub(crate) instance: Option<usize>,
}

/// What C holds.
pub(crate) type Raw = *mut std::ffi::c_void;

impl Handle {
    pub(crate) fn raw(self) -> Raw {
        let instance = self.instance.map_or(0, |index| index + 1);
        std::ptr::without_provenance_mut((instance << 16) | (self.gpu + 1))
    }

    pub(crate) fn from_raw(raw: Raw) -> Result<Self, Code> {
        let bits = raw.addr();
        let gpu = (bits & 0xffff).checked_sub(1).ok_or(INVALID)?;
        Ok(Self {
            gpu,
            instance: (bits >> 16).checked_sub(1),
        })
    }
}

/// A function that is being called.
pub(crate) struct Call {
    pub(crate) state: Arc<Value>,
    pub(crate) handle: Option<Handle>,
    symbol: &'static str,
}

impl Call {
    /// Of the library.
    pub(crate) fn global(symbol: &'static str) -> Result<Self, Code> {
        Self {
            state: read(),
            handle: None,
            symbol,
        }
        .admitted()
    }

    /// Of a GPU or an instance.
    pub(crate) fn of(symbol: &'static str, raw: Raw) -> Result<Self, Code> {
        let handle = Handle::from_raw(raw)?;
        Self {
            state: read(),
            handle: Some(handle),
            symbol,
        }
        .admitted()
    }

    /// After its delay, if it is not to fail.
    fn admitted(mut self) -> Result<Self, Code> {
        let began = Instant::now();
        loop {
            let delay = self.state["delays_ms"][self.symbol].as_u64().unwrap_or(0);
            if began.elapsed() >= Duration::from_millis(delay) {
                break;
            }
            std::thread::sleep(SLICE);
            self.state = read();
        }
        let set = |errors: &Value| errors[self.symbol].as_u64().or(errors["*"].as_u64());
        let own = self
            .handle
            .and_then(|handle| set(&self.state["gpus"][handle.gpu]["errors"]));
        match set(&self.state["errors"]).or(own).unwrap_or(0) {
            0 => Ok(self),
            code => Err(code as Code),
        }
    }

    /// The GPU's, or the instance's, part of the file.
    pub(crate) fn object(&self) -> &Value {
        match self.handle {
            Some(Handle {
                gpu,
                instance: None,
            }) => &self.state["gpus"][gpu],
            Some(Handle {
                gpu,
                instance: Some(index),
            }) => &self.state["gpus"][gpu]["mig"][index],
            None => &self.state,
        }
    }

    /// `values.<symbol>`, or of `key` in it.
    pub(crate) fn number(&self, key: Option<&str>) -> Result<u64, Code> {
        let value = &self.object()["values"][self.symbol];
        let value = key.map_or(value, |key| &value[key]);
        value.as_u64().ok_or(NOT_SUPPORTED)
    }
}
