//! stub until the real one is merged
#![allow(missing_docs)]
use crate::classify::Endpoint;
use crate::record::Record;
use bytes::Bytes;
use std::sync::Arc;
#[derive(Debug, Default)]
pub struct PromptCell;
#[derive(Debug)]
pub struct Job {
    pub record: Record,
    pub prompt: Option<Arc<PromptCell>>,
}
#[derive(Debug, Clone)]
pub struct Estimator;
impl Estimator {
    pub fn prompt(&self, _: Endpoint, _: Bytes, _: Arc<PromptCell>) {}
    pub fn finish(&self, job: Job) -> Result<(), Box<Job>> {
        Err(Box::new(job))
    }
}
