"""The customer list: extracted, judged, staged, sent to a group."""
