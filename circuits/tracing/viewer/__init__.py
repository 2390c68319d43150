"""The page of an attribution graph: drawn, filtered, pinned and grouped in the browser, with what is known of nodes."""
