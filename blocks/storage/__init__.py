"""Files in the lake and on local disks: errors, temporary folders, formats, manifests."""
