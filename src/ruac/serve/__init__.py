"""`ruac serve`: masks and their uncertainty over HTTP, for programs.

    command ──► supervisor ──► worker, one a process:  gate ──► app ──► lane ──► engine ──► Predictor
                                                        who may enter     one thread   what is answered

Uploads lie in one folder (`spool`) that all workers share, under the hash of their bytes, so that an id means the same to each of
them, and to the next server with the same --spool. What is encoded stays in the memory of the worker that did it (`embeddings`).
"""
