//! Hugging Face model snapshots on disk: where they lie, which of their files belong into an image, and
//! what is known about the files' integrity. Must not know layers or OCI.
