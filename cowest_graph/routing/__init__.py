"""Who answers a query: a router that is learnt from traces, with its card and its versions."""
