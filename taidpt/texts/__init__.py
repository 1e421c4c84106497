"""Words only, without torch: the tag list, captions, labels, templates."""
