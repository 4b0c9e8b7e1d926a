"""Policies of other people's papers, for comparison under equal conditions."""
