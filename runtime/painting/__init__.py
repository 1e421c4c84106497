"""Pictures with results painted on them."""
