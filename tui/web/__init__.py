"""The planner in a browser: who may come in, the page, and a planner's process for each page that is open."""
