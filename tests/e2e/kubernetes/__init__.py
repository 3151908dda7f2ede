"""What becomes of manifests: Kubernetes' and KServe's judgement, KServe's injections, and a kubelet."""
