//! Talking to OCI registries: authentication, manifests, blobs, ranges, uploads. Must not know what
//! layers contain.
