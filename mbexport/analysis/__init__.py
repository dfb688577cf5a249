"""Questions put to stored profiles: what changed, which network fits, what another would take, and one page of all."""
