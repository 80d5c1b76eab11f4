//! One worker's choice among the upstreams, and its connections to them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tower::load::Load;
use tower::util::rng::{HasherRng, Rng};

use super::endpoint::{Endpoint, Seat, Standing};
use super::place::Place;
use super::queue::Waiting;
use super::registry::Registry;
use super::sessions::{hash, weight};
use super::table::Table;
use crate::config::{self, Config};
use crate::metrics::polled::Books;
use crate::metrics::upstreams::Rejected;
use crate::upstream::Upstream;

/// One worker's.
#[derive(Debug)]
pub struct Balance {
    worker: usize,
    registry: Arc<Registry>,
    /// Apart: a `Backend` is to be no larger for it.
    upstream: Box<config::Upstream>,
    view: RefCell<View>,
    chance: RefCell<HasherRng>,
}

/// The table that was last seen, and what is this worker's own of each upstream in it.
#[derive(Debug, Default)]
struct View {
    version: Option<u64>,
    table: Arc<Table>,
    locals: Vec<Rc<Local>>,
}

/// One upstream, as this worker has it.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) upstream: Rc<Upstream>,
    pub(super) books: Option<Books>,
}

/// What a request needs.
#[derive(Debug, Default)]
pub struct Want {
    /// The model that it names.
    pub model: Option<Box<str>>,
    /// The hash of its session.
    pub session: Option<u64>,
    /// Upstreams that have been tried.
    pub tried: smallvec::SmallVec<[usize; 4]>,
}

/// What there is for it.
#[derive(Debug)]
pub enum Pick {
    /// This one.
    Place(Place),
    /// Nothing now: all that will do have enough.
    Busy,
    /// None that has not been tried.
    Nobody,
}

impl Want {
    /// What the affinity header is worth.
    pub fn session(&mut self, value: &[u8]) {
        if !value.is_empty() {
            let model = self.model.as_deref().unwrap_or_default();
            self.session = Some(weight(hash(value), hash(model.as_bytes())));
        }
    }
}

impl Balance {
    /// A worker without connections yet.
    #[must_use]
    pub fn new(worker: usize, registry: Arc<Registry>, config: &Config) -> Self {
        Self {
            worker,
            registry,
            upstream: Box::new(config.upstream.clone()),
            view: RefCell::default(),
            chance: RefCell::new(HasherRng::new()),
        }
    }

    /// What was configured.
    #[must_use]
    pub fn settings(&self) -> &config::Gateway {
        self.registry.settings()
    }

    /// The upstreams.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A request was turned away.
    pub fn rejected(&self, why: Rejected) {
        self.registry.rejected(why);
    }

    /// The table as it is now.
    pub fn table(&self) -> Arc<Table> {
        self.refresh();
        Arc::clone(&self.view.borrow().table)
    }

    /// Closes connections that have idled too long, and those to upstreams that are gone.
    pub fn reap(&self) {
        self.refresh();
        for local in &self.view.borrow().locals {
            local.upstream.reap();
        }
    }

    fn refresh(&self) {
        let version = self.registry.version();
        if self.view.borrow().version == Some(version) {
            return;
        }
        let table = self.registry.table();
        let mut view = self.view.borrow_mut();
        let before = std::mem::take(&mut view.locals);
        view.locals = table
            .endpoints
            .iter()
            .map(|endpoint| {
                let known = before
                    .iter()
                    .find(|local| local.endpoint.id() == endpoint.id());
                known.map_or_else(|| Rc::new(self.local(endpoint)), Rc::clone)
            })
            .collect();
        view.table = table;
        view.version = Some(version);
    }

    fn local(&self, endpoint: &Arc<Endpoint>) -> Local {
        Local {
            upstream: Upstream::new(endpoint.connector.clone(), &self.upstream),
            books: endpoint.upstream.books(self.worker),
            endpoint: Arc::clone(endpoint),
        }
    }

    /// A place, if there is one now.
    pub fn pick(&self, want: &Want, now: Instant) -> Pick {
        self.refresh();
        let now = self.registry.millis(now);
        let view = self.view.borrow();
        let choice = Choice {
            view: &view,
            pool: view.table.pool(want.model.as_deref()),
            tried: &want.tried,
            now,
        };
        if let Some(session) = want.session
            && let Some((local, seat)) = self.of_session(&choice, session)
        {
            return Pick::Place(self.place(local, seat));
        }
        let chance = self.chance.borrow_mut().next_u64();
        if let Some((local, seat)) = choice.of_two(chance) {
            return Pick::Place(self.place(local, seat));
        }
        match choice.of_all(chance) {
            Ok((local, seat)) => Pick::Place(self.place(local, seat)),
            Err(true) => Pick::Busy,
            Err(false) => Pick::Nobody,
        }
    }

    /// Waits for a place, behind those who wait already. `None`: so many do that no more may.
    pub fn wait(&self, want: &Want) -> Option<Waiting> {
        let ids = self.view.borrow().table.ids(want.model.as_deref());
        self.registry.queue().join(want.model.as_deref(), ids)
    }

    /// The place that was waited for.
    pub fn seated(&self, seat: Seat) -> Place {
        self.refresh();
        let view = self.view.borrow();
        let mut locals = view.locals.iter();
        let known = locals.find(|local| local.endpoint.id() == seat.endpoint().id());
        // Else it is gone meanwhile, and will do for this one request.
        let local = known.map_or_else(|| Rc::new(self.local(seat.endpoint())), Rc::clone);
        self.place(&local, seat)
    }

    fn place(&self, local: &Rc<Local>, seat: Seat) -> Place {
        Place::new(seat, Rc::clone(local), Arc::clone(&self.registry))
    }

    /// Where the session is, or where a new one belongs.
    fn of_session<'a>(&self, choice: &Choice<'a>, session: u64) -> Option<(&'a Rc<Local>, Seat)> {
        let sessions = self.registry.sessions();
        let known = sessions.get(session);
        let known = choice
            .all()
            .find(|local| Some(local.endpoint.id()) == known);
        if let Some(local) = known {
            if choice.is_good(local) {
                // If it has enough, the session goes elsewhere this once.
                return Some((local, local.endpoint.enter(choice.now)?));
            }
            // Likewise if it has just failed, or wants to be left alone for a moment: what it has of the session is still
            // there afterwards.
            if choice.is_tried(local) || choice.rests(local) {
                return None;
            }
        }
        // Who has a quarter more than his share gets nothing new, however the hash falls. Of few requests that says nothing.
        let load: usize = choice.all().map(|local| local.endpoint.load()).sum();
        let share = load / choice.pool.len().max(1);
        let most = (share + share / 4).max(share + 16);
        let local = choice
            .all()
            .filter(|local| choice.is_good(local) && local.endpoint.load() < most)
            .max_by_key(|local| weight(session, local.endpoint.hash))?;
        let seat = local.endpoint.enter(choice.now)?;
        sessions.put(session, local.endpoint.id());
        Some((local, seat))
    }
}

/// One choice among the upstreams of a pool.
struct Choice<'a> {
    view: &'a View,
    pool: &'a [usize],
    tried: &'a [usize],
    now: u64,
}

impl<'a> Choice<'a> {
    fn get(&self, at: usize) -> Option<&'a Rc<Local>> {
        self.view.locals.get(*self.pool.get(at)?)
    }

    fn all(&self) -> impl Iterator<Item = &'a Rc<Local>> {
        let locals = &self.view.locals;
        self.pool.iter().filter_map(|index| locals.get(*index))
    }

    fn is_tried(&self, local: &Local) -> bool {
        self.tried.contains(&local.endpoint.id())
    }

    fn is_good(&self, local: &Local) -> bool {
        !self.is_tried(local) && local.endpoint.standing(self.now) == Standing::GOOD
    }

    fn rests(&self, local: &Local) -> bool {
        local.endpoint.standing(self.now).only_rests()
    }

    /// The less loaded of two, if nothing speaks against either.
    fn of_two(&self, chance: u64) -> Option<(&'a Rc<Local>, Seat)> {
        let count = self.pool.len() as u64;
        if count == 0 {
            return None;
        }
        let first = chance % count;
        let other = (first + 1 + (chance >> 32) % (count - 1).max(1)) % count;
        let get = |at: u64| {
            self.get(usize::try_from(at).ok()?)
                .filter(|local| self.is_good(local))
        };
        let (first, other) = (get(first)?, get(other)?);
        let local = if other.endpoint.load() < first.endpoint.load() {
            other
        } else {
            first
        };
        Some((local, local.endpoint.enter(self.now)?))
    }

    /// The least loaded of those that the least speaks against. If something speaks against all, that is the best that can
    /// be done. `Err(true)`: they have enough, `Err(false)`: there are none.
    fn of_all(&self, chance: u64) -> Result<(&'a Rc<Local>, Seat), bool> {
        let left = || self.all().filter(|local| !self.is_tried(local));
        let Some(best) = left().map(|local| local.endpoint.standing(self.now)).min() else {
            return Err(false);
        };
        let mut best: Vec<_> = left()
            .filter(|local| local.endpoint.standing(self.now) == best)
            .collect();
        // Those with equally many in turn, not always the first.
        let turn = usize::try_from(chance % best.len().max(1) as u64).unwrap_or(0);
        best.rotate_left(turn);
        best.sort_by_key(|local| local.endpoint.load());
        best.into_iter()
            .find_map(|local| Some((local, local.endpoint.enter(self.now)?)))
            .ok_or(true)
    }
}
