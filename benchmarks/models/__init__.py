"""Models trained in seconds to minutes, and their data, to judge explanations on."""
