"""Builders and measurements that are not part of the installed package."""
