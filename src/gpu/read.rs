//! One poll of one GPU into plain values: what is asked when, and what is not asked again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::gpu::lifecycle::{Class, Fault};
use crate::gpu::names::Field;
use crate::gpu::rates::Meter;
use crate::gpu::source::{Answer, Call, Counters, Identity, Instance, Source};

/// What one poll has found. What a GPU has not got is not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Each field at most once.
    pub values: Vec<(Field, f64)>,
    /// Of a GPU with MIG.
    pub instances: Vec<Instance>,
    /// Pid, bytes; each pid at most once.
    pub processes: Vec<(u32, u64)>,
}

impl Reading {
    /// A value, if there is one.
    #[must_use]
    pub fn get(&self, field: Field) -> Option<f64> {
        self.values
            .iter()
            .find_map(|(found, value)| (*found == field).then_some(*value))
    }

    fn set(&mut self, field: Field, value: f64) {
        self.values.retain(|(found, _)| *found != field);
        self.values.push((field, value));
    }
}

/// A GPU, and what is remembered of it between two polls of one generation.
#[derive(Debug)]
pub struct Gpu {
    /// Who it is.
    pub identity: Identity,
    cannot: BTreeSet<Call>,
    /// MIG on or off, as last heard.
    mig: Option<f64>,
    slow: Vec<(Field, f64)>,
    slow_at: Option<Instant>,
    pcie: Meter,
    nvlink: Meter,
}

/// How a poll is done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Limits, thresholds and lifetime counts are read this often.
    pub slow_every: Duration,
    /// Ask for processes.
    pub processes: bool,
}

impl Gpu {
    /// Nothing read yet.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            cannot: BTreeSet::new(),
            mig: None,
            slow: Vec::new(),
            slow_at: None,
            pcie: Meter::pcie(),
            nvlink: Meter::nvlink(),
        }
    }

    /// Asks all there is to ask. `failed` hears of each error once per call that is made.
    ///
    /// # Errors
    /// A fault after which nothing more of this GPU, or of NVML, can be believed.
    pub fn read(
        &mut self,
        source: &mut impl Source,
        plan: Plan,
        now: Instant,
        failed: &mut impl FnMut(Call, Fault),
    ) -> Result<Reading, Fault> {
        let mut reading = Reading::default();
        let mut counters = Counters::default();
        let gpu = self.identity.index;
        let mut gpm_pcie = None;
        for call in Call::FAST {
            if let Some(answer) = self.ask(call, failed, || source.ask(gpu, call))? {
                if call == Call::Gpm {
                    gpm_pcie = pair(&answer, Field::PcieTx, Field::PcieRx);
                }
                counters.pcie = counters.pcie.or(answer.counters.pcie);
                counters.nvlink = counters.nvlink.or(answer.counters.nvlink);
                reading.values.extend(answer.values);
            }
        }
        self.mig(&reading);
        self.read_slow(source, plan, now, failed)?;
        reading.values.extend(&self.slow);
        self.nvlink(&mut reading, counters, now);
        self.pcie(source, &mut reading, counters, gpm_pcie, now, failed)?;
        if reading.get(Field::MigMode) == Some(1.0) {
            self.instances(source, &mut reading, failed)?;
        }
        if plan.processes {
            let found = self.ask(Call::Processes, failed, || source.processes(gpu))?;
            // A process is listed once for each instance that it has memory of.
            let mut by_pid = BTreeMap::<_, u64>::new();
            for (pid, bytes) in found.unwrap_or_default() {
                let sum = by_pid.entry(pid).or_default();
                *sum = sum.saturating_add(bytes);
            }
            reading.processes = by_pid.into_iter().collect();
        }
        Ok(reading)
    }

    /// One question, unless it is known to be in vain.
    fn ask<T>(
        &mut self,
        call: Call,
        failed: &mut impl FnMut(Call, Fault),
        question: impl FnOnce() -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        if self.cannot.contains(&call) {
            return Ok(None);
        }
        let fault = match question() {
            Ok(answer) => return Ok(Some(answer)),
            Err(fault) => fault,
        };
        failed(call, fault);
        match fault.class() {
            Class::Never => {
                self.cannot.insert(call);
                Ok(None)
            }
            Class::NotNow => Ok(None),
            Class::Lost | Class::Over => Err(fault),
        }
    }

    /// With MIG turned on or off a GPU can other things: everything is asked again.
    fn mig(&mut self, reading: &Reading) {
        let Some(mode) = reading.get(Field::MigMode) else {
            return;
        };
        if self.mig.replace(mode).is_some_and(|before| before != mode) {
            self.cannot.clear();
            self.slow_at = None;
        }
    }

    fn read_slow(
        &mut self,
        source: &mut impl Source,
        plan: Plan,
        now: Instant,
        failed: &mut impl FnMut(Call, Fault),
    ) -> Result<(), Fault> {
        if self
            .slow_at
            .is_some_and(|at| now.saturating_duration_since(at) < plan.slow_every)
        {
            return Ok(());
        }
        let gpu = self.identity.index;
        let mut slow = Vec::new();
        for call in Call::SLOW {
            if let Some(answer) = self.ask(call, failed, || source.ask(gpu, call))? {
                slow.extend(answer.values);
            }
        }
        self.slow = slow;
        self.slow_at = Some(now);
        Ok(())
    }

    fn nvlink(&mut self, reading: &mut Reading, counters: Counters, now: Instant) {
        // The counters are in KiB; GPM, if there is any, has said it already.
        let rates = counters
            .nvlink
            .and_then(|(out, into)| self.nvlink.read(now, out, into));
        if let Some((out, into)) = rates {
            reading.set(Field::NvlinkTx, out * 1024.0);
            reading.set(Field::NvlinkRx, into * 1024.0);
        }
        if let (Some(out), Some(into)) =
            (reading.get(Field::NvlinkTx), reading.get(Field::NvlinkRx))
        {
            reading.set(Field::NvlinkTotal, out + into);
        }
    }

    /// Counters that cannot wrap unseen, then GPM, then counters that can, and the call that blocks last.
    fn pcie(
        &mut self,
        source: &mut impl Source,
        reading: &mut Reading,
        counters: Counters,
        gpm: Option<(f64, f64)>,
        now: Instant,
        failed: &mut impl FnMut(Call, Fault),
    ) -> Result<(), Fault> {
        let counted = counters
            .pcie
            .and_then(|(out, into)| self.pcie.read(now, out, into));
        let rates = match (counted, gpm) {
            (Some(rates), _) if self.pcie.is_wide() => Some(rates),
            (_, Some(rates)) => Some(rates),
            (counted, None) => counted,
        };
        if let Some((out, into)) = rates {
            reading.set(Field::PcieTx, out);
            reading.set(Field::PcieRx, into);
        } else if counters.pcie.is_none() && self.cannot.contains(&Call::Gpm) {
            let gpu = self.identity.index;
            let answer = self.ask(Call::PcieThroughput, failed, || {
                source.ask(gpu, Call::PcieThroughput)
            })?;
            reading.values.extend(answer.unwrap_or_default().values);
        }
        Ok(())
    }

    fn instances(
        &mut self,
        source: &mut impl Source,
        reading: &mut Reading,
        failed: &mut impl FnMut(Call, Fault),
    ) -> Result<(), Fault> {
        let gpu = self.identity.index;
        let found = self.ask(Call::MigInstances, failed, || source.instances(gpu))?;
        reading.instances = found.unwrap_or_default();
        // What the instances say of themselves is not said of the whole again: sums would have it twice.
        let theirs: BTreeSet<_> = reading
            .instances
            .iter()
            .flat_map(|instance| instance.values.iter().map(|(field, _)| *field))
            .collect();
        reading.values.retain(|(field, _)| !theirs.contains(field));
        Ok(())
    }
}

fn pair(answer: &Answer, one: Field, other: Field) -> Option<(f64, f64)> {
    let get = |wanted| {
        answer
            .values
            .iter()
            .find_map(|(field, value)| (*field == wanted).then_some(*value))
    };
    Some((get(one)?, get(other)?))
}

#[cfg(test)]
mod tests;
