"""Scenes, backgrounds and captions that the toy data set draws when it is used."""
