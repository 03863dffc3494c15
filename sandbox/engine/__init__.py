"""Background jobs: reruns, exports, uploads; and quotas."""
