"""Structured mutation of volumes and records, judged by readers that are not ours."""
