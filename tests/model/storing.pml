/* SPDX-License-Identifier: MIT */
/*
 * How promptd stores a prompt, as a model that SPIN searches completely: one interview, its prompt, the prompt's row in
 * promptd_unsettled (its evidence), and everybody who acts on them. README.md says how to run it.
 *
 *     statements.pml    insert, settle, undo, mark, transact: what they do in the server, moment by moment
 *     application.pml   the application, which moves the interview on, locks it, deletes; and the server's crashes
 *     promptd.pml       two promptds, statements that outlive their client, and what must be true when all is quiet
 *     anybody.pml       instead: clients that send any statement, at any time, in any order, for ever
 *
 * What PostgreSQL does at READ COMMITTED, and this model with it:
 *
 *     A statement has a snapshot: the rows as they were when it began. Then it locks, then it writes and commits. Each
 *     of these is one moment, and anything may happen between two of them.
 *
 *     `for update skip locked` passes over a row that somebody else has locked, and over one that was deleted since the
 *     snapshot. One that was changed since is judged again, in its newest version.
 *
 *     A sub-select or a plain look is not judged again: it stays as old as the snapshot.
 *
 *     An insert or a delete waits for whoever has inserted or deleted the same row and not committed yet.
 */

/* --- guards ----------------------------------------------------------------------------------------------------- */

/* What statements and steps rely on. `without` is the number of one that is taken out: then there must be an error. */
#define settle_needs_evidence         1 /* the interview is moved only for evidence that is there */
#define settle_locks_evidence         2 /* `for update`: only for evidence that nobody else takes meanwhile */
#define settle_needs_prompt           3 /* only for evidence whose prompt the snapshot sees */
#define settle_locks_interview        4 /* `for no key update`: nobody moves it on before the commit */
#define settle_judges_locked_row      5 /* the status counts as it is in the locked row */
#define settle_keeps_if_not_moved     6 /* evidence goes only where the interview was moved, or was ready before */
#define settle_commit_is_synchronous  7
#define undo_needs_evidence           8 /* the prompt is deleted only for evidence that is there */
#define undo_locks_evidence           9 /* `for update`, as above */
#define undo_not_by_status           10 /* and for nothing else: 0.1.0 deleted where the interview was not ready */
#define undo_keeps_if_not_deleted    11 /* evidence goes only where the prompt was deleted, or is not there */
#define undo_removes_leftover        12 /* evidence of a prompt that is not there does go */
#define undo_checks_version          13 /* but only in the version that the snapshot sees */
#define insert_writes_evidence       14 /* prompt and evidence in one statement */
#define insert_marks_only_its_own    15 /* evidence only for what this very statement has inserted */
#define insert_renews_leftover       16 /* `on conflict do update`: a new version of evidence that was left over */
#define transact_needs_interview     17 /* prompts only for interviews that it holds */
#define transact_fails_if_not_moved  18 /* a move that is swallowed makes the whole fail */
#define transact_removes_leftover    19 /* evidence that was left over goes, for its prompt is settled now */
#define transact_looks_again         20 /* in a second statement of the transaction, whose snapshot is newer */
#define mark_spares_the_rest         21 /* only what is awaiting is marked */
#define mark_commit_is_synchronous   22
#define recover_spares_failed        23 /* what was reported as failed is not made ready */
#define verify_looks_at_evidence     24 /* a prompt that is there is not stored yet */
#define outcome_needs_settle         25 /* the answer to an insert is no outcome */
#define mark_follows_undo            26
#define spool_keeps_until_outcome    27
#define recovery_runs                28

#define GUARD(name, condition) (without == name || (condition))
#define UNLESS_WITHOUT(name, condition) (without != name && (condition))

/* --- the world -------------------------------------------------------------------------------------------------- */

#ifndef PROMPTS
#define PROMPTS 1 /* 2: each promptd has a message of its own for the interview; 1: both have the same */
#endif

/* From the environment, so that one program serves for all. check.py has the worlds that are searched. */
byte without;       /* which guard is taken out */
byte transacts;     /* which promptd has atomicity = transaction: 1, 2, or 3 for both */
byte faults;        /* in all: answers lost, promptds killed, crashes of the server, errors, long delays, triggers */
byte locks;         /* times that the application holds the interview's row */
byte deletions;     /* times that it deletes the prompt, or prompt and interview */
byte regenerations; /* times that it wants another prompt: back to `enhancing` */

c_decl {
static int environment(const char *name)
{
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}
}

inline make_world()
{
    c_code {
        now.without = environment("WITHOUT");
        now.transacts = environment("TRANSACTS");
        now.faults = environment("FAULTS");
        now.locks = environment("LOCKS");
        now.deletions = environment("DELETIONS");
        now.regenerations = environment("REGENERATIONS");
    }
}

mtype = {
    missing, enhancing, failed, ready, in_progress, timed_out, /* the interview: no row, or its status */
    IDLE, INSERT, TRANSACT, SETTLE, RECOVER, UNDO, MARK, VERIFY, /* steps; IDLE: no job */
    begins, inserted, settles, seen, locked, ends, /* where a statement is */
    NOTHING, CHANGED, NOT_CHANGED, FAILED, /* answers; NOT_CHANGED: it held the rows, but a trigger kept them */
    NEXT, AGAIN, FAIL, FINISH, /* verdicts on a step */
    none, stored, failure, lost /* outcomes; stored or duplicate; any other; lost with a promptd that has no spool */
};

/* --- the database ----------------------------------------------------------------------------------------------- */

#define FREE 0
#define APPLICATION 7
#define BIT(who) (1 << (who))

#if PROMPTS > 1
#define FOR_EACH_PROMPT(what) what(0); what(1)
#else
#define FOR_EACH_PROMPT(what) what(0)
#endif

/* The rows as they are committed, and who has locked them, or written them and not committed yet. */
mtype status = enhancing;
byte interview_lock;
bool for_update; /* the lock is one that an insert passes over, not just `for no key update` */
bool prompt[PROMPTS];
byte prompt_lock[PROMPTS];
bool evidence[PROMPTS];
byte evidence_lock[PROMPTS];

/* A bit for each statement whose snapshot sees the row that is there now, and in the version of now. */
byte sees_prompt[PROMPTS];
byte sees_evidence[PROMPTS];
byte sees_version[PROMPTS];

byte running; /* statements that have begun */

/* What a crash of the server leaves. What is committed asynchronously gets here with the next synchronous commit. */
mtype disk_status = enhancing;
bool disk_prompt[PROMPTS];
bool disk_evidence[PROMPTS];

#define FLUSHED(q) disk_prompt[q] = prompt[q]; disk_evidence[q] = evidence[q]

inline flush()
{
    disk_status = status;
    FOR_EACH_PROMPT(FLUSHED)
}

/* --- what is promised ------------------------------------------------------------------------------------------- */

/* The interview was made ready with this prompt. undo_commit asserts that no such prompt is deleted. */
bool settled[PROMPTS];

/* After each commit and crash: the settled prompt is what stands there without evidence. */
#define PROMISED(q)                                                                                                    \
    assert(!settled[q] || prompt[q]);                                                                                  \
    assert(!settled[q] || !evidence[q]);                                                                               \
    assert(settled[q] || !prompt[q] || evidence[q])

bool deleted_by_application[PROMPTS]; /* at some time */
byte excused[PROMPTS]; /* a bit for each statement: the application has deleted the prompt that its snapshot sees */
bool regenerated;
bool reported_orphan[PROMPTS];
bool reported_stuck;
bool reported_failed; /* and the interview is marked so, and nobody has begun anew */
mtype outcome[3] = none; /* of promptd 1 and 2 */

/* For the story of an error, which check.py prints. */
inline tell_rows()
{
    printf(": ");
    printm(status);
    printf(", prompt %d, evidence %d\n", prompt[0], evidence[0])
}

#include "statements.pml"
#include "application.pml"
#ifdef ANYBODY
#include "anybody.pml"
#else
#include "promptd.pml"
#endif
