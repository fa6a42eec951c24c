//! Reading an actor's state: a question that decides nothing, answered when what it saw is durable.

use tokio::sync::oneshot;

/// Asks an actor for something computed from its state `S`.
pub(crate) struct Read<S, T> {
    pub(crate) question: Box<dyn FnOnce(&S) -> T + Send>,
    pub(crate) answer: oneshot::Sender<T>,
}
