//! What makes a plan impossible.

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Base and compile caches leave no layer for the model.
    #[error(
        "base and compile caches alone have {taken} layers and at most {max_layers} are allowed; \
         raise --max-layers or choose a smaller base"
    )]
    NoLayerLeft {
        /// Layers of base and compile caches.
        taken: usize,
        /// Layers that are allowed.
        max_layers: usize,
    },
    /// The chunk size is outside its limits.
    #[error("a chunk size of {size} bytes is outside {minimum} to {maximum}")]
    ChunkSize {
        /// The size that was asked for, in bytes.
        size: u64,
        /// Smallest size in bytes.
        minimum: u64,
        /// Largest size in bytes.
        maximum: u64,
    },
}
