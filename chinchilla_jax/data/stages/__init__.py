"""The stages of `prepare`: functions from a task to files and a small result, which an engine maps over all tasks.

    read    a part of a source       -> its documents, cleaned and filtered, in sorted segments
    merge   a range of hashes        -> the documents there without exact duplicates, in their final order
    near    a band of the signatures -> pairs of documents that look alike
    settle  a range of hashes        -> the documents there without near-duplicates, or grouped with them
    encode  a range of hashes        -> tokens
    shard   a stretch of the stream  -> a file of the store

A stage reads and writes below the folder of the job alone and writes its result last, so a task can be run again, by
whatever engine on whatever machine, and a job that was killed goes on with the tasks that have no result. Documents
are ordered by a seeded hash of their content: nothing depends on how the input was cut or who worked on it.
"""
