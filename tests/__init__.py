"""The suite. A regular package, so that no installed package named `tests` can stand in for it."""
