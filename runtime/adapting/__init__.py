"""New class rows from pictures: of an unlabelled scene, or of examples of a tag."""
