"""Background work: reruns, exports, uploads, and the quota."""
