/* SPDX-License-Identifier: MIT */
/*
 * Two promptds, after src/storage/steps.c and recovery.c; statements that outlive them; and the end, when nobody can do
 * anything any more.
 *
 *     insert ─▶ settle ─▶ stored                       undo ─▶ mark ─▶ failure
 *       └ nothing ─┴─▶ verify ── prompt & unsettled, ──┘└ fails: orphan ─▶ mark
 *                         │      no longer awaiting
 *                         ├ prompt & settled ─▶ stored
 *                         ├ no prompt ─▶ insert again, or failure
 *                         └ locked ─▶ the same step later
 *
 * An answer that never comes is lost when its statement is sent. Whether the server runs it, and when, is up to Late:
 * so a connection that is cut while a statement runs, or a client that is killed, needs no moment of its own.
 */

#define ATTEMPTS 2 /* retry_attempts */

/* --- statements that outlive their client ----------------------------------------------------------------------- */

mtype late = IDLE;
byte late_p;

#define LATE_CAN_BEGIN (late != IDLE && (late != INSERT || prompt_lock[late_p] == FREE))

proctype Late(byte me)
{
    STATEMENT;
end:
    do
    :: atomic {
           (step == IDLE && LATE_CAN_BEGIN) || (step != IDLE && CAN_GO_ON) ->
           step = late;
           p = late_p;
           choose();
           if
           :: d_step { go_on() }
           :: step == INSERT && at == settles && !fails -> at = begins /* the connection is gone: no settle */
           fi;
           if
           :: at == begins -> d_step { step = IDLE; p = 0; answer = NOTHING; late = IDLE; late_p = 0 }
           :: else
           fi
       }
    od
}

/* --- a job ------------------------------------------------------------------------------------------------------ */

byte at_work; /* jobs in work, of both */
bool begun;   /* the first message is in work, or was */

#define JOB                                                                                                            \
    STATEMENT;                                                                                                         \
    mtype verifies = IDLE;                                                                                             \
    mtype verdict = NEXT;                                                                                              \
    byte attempts;                                                                                                     \
    bool held; /* the step that changed nothing had all its rows */                                                    \
    bool waits; /* for whoever has locked a row */                                                                     \
    bool recovers /* no message, but a row in promptd_unsettled */

#define FIRST ((transacts & me) -> TRANSACT : INSERT)
#define SENDS (step != IDLE && step != VERIFY)
#define STILL_WAITS (status == enhancing || status == ready || (status == failed && verifies != RECOVER))

inline begin_job(which, with)
{
    at_work++;
    p = which;
    step = with;
    recovers = with == RECOVER
}

inline end_job()
{
    at_work--;
    p = 0;
    step = IDLE;
    attempts = 0;
    recovers = false
}

/* What the statement's answer says about the step. */
inline answered()
{
    if
    :: answer == FAILED -> verdict = FAIL
    :: answer == CHANGED && step == UNDO -> step = MARK; verdict = (without == mark_follows_undo -> FINISH : NEXT)
    :: answer == CHANGED && step != UNDO -> verdict = FINISH
    :: answer == NOT_CHANGED && SETTLES -> /* an error, after which it is tried again */
        held = true;
        step = (step == INSERT -> SETTLE : step);
        verdict = AGAIN
    :: answer == NOTHING || (answer == NOT_CHANGED && !SETTLES) ->
        held = answer == NOT_CHANGED;
        verifies = step;
        step = VERIFY
    fi;
    answer = NOTHING
}

inline verify_prompt()
{
    if
    :: GUARD(verify_looks_at_evidence, !evidence[p]) -> step = SETTLE; verdict = FINISH
    :: else ->
        if
        :: verifies == UNDO -> verdict = AGAIN
        :: verifies != UNDO && !STILL_WAITS -> step = UNDO
        :: verifies != UNDO && STILL_WAITS && verifies == FIRST -> step = SETTLE
        :: else -> verdict = AGAIN
        fi
    fi
}

inline verify_absence()
{
    if
    :: verifies == UNDO -> step = MARK
    :: verifies == RECOVER -> step = UNDO; verdict = (evidence[p] -> NEXT : FINISH)
    :: else ->
        if
        :: status == missing -> step = (evidence[p] -> UNDO : MARK)
        :: status != missing && FIRST == TRANSACT && !STILL_WAITS -> step = MARK
        :: else ->
            held = held || verifies == SETTLE; /* the prompt is gone again: that counts as an attempt */
            step = FIRST;
            verdict = AGAIN
        fi
    fi
}

inline verify()
{
    step = verifies;
    if
    :: verifies == MARK -> verdict = (status == enhancing -> AGAIN : FINISH)
    :: verifies != MARK && prompt[p] -> verify_prompt()
    :: verifies != MARK && !prompt[p] -> verify_absence()
    fi;
    verifies = IDLE
}

/* What the verdict makes of the job. */
inline decide()
{
    if
    :: verdict == AGAIN && held ->
        attempts++;
        verdict = (attempts == ATTEMPTS -> FAIL : NEXT)
    :: verdict == AGAIN && !held ->
        waits = true;
        verdict = NEXT
    :: else
    fi;
    held = held && step == VERIFY;
    if
    :: verdict == FAIL ->
        attempts = 0;
        reported_orphan[p] = reported_orphan[p] || step == UNDO;
        reported_stuck = reported_stuck || step == MARK;
        verdict = (step == MARK -> FINISH : NEXT);
        step = (step == INSERT || step == SETTLE || step == RECOVER -> UNDO : MARK)
    :: else
    fi;
    if
    :: verdict == FINISH ->
        assert(recovers || step == MARK || settled[p] || deleted_by_application[p]);
        reported_failed = reported_failed || (step == MARK && status == failed);
        outcome[me] = (recovers -> outcome[me] : (step == MARK -> failure : stored));
        printf("%d ends: ", me);
        printm(outcome[me]);
        printf("\n");
        end_job()
    :: else
    fi;
    verdict = NEXT
}

/* --- promptd ---------------------------------------------------------------------------------------------------- */

/* With the same message and the same settings it does not matter who is first. */
#define MAY_BE_FIRST (me == 1 || begun || PROMPTS > 1 || transacts == 1 || transacts == 2)
#define HAS_MESSAGE (step == IDLE && todo && prompt_lock[mine] == FREE && MAY_BE_FIRST)

/* Evidence gets old enough for the recovery when nobody works any more; or while somebody is delayed for so long, which
 * is a fault. What cannot be undone is tried again, but in the model not for ever. */
#define RECOVERABLE(q)                                                                                                 \
    (without != recovery_runs && evidence[q] && evidence_lock[q] == FREE &&                                            \
     !(reported_orphan[q] && keeps_prompt && prompt[q]))

/* It comes back when the rows are free. Or it loses patience: with the application; or with a statement that is delayed
 * for so long, which is a fault. */
#define LOCKED_OUT ((step != UNDO && interview_lock != FREE) || (step != MARK && !UNLOCKED(p)))
#define LOCKED_OUT_BY_APPLICATION (step != UNDO && interview_lock == APPLICATION)

proctype Promptd(byte me; byte mine)
{
    JOB;
    bool todo = true; /* the message is still to come, or in the spool */
end:
    do
    :: atomic {
           HAS_MESSAGE || (SENDS && CAN_GO_ON && !(waits && LOCKED_OUT)) ->
           if
           :: step == IDLE -> d_step { begun = true; todo = false; begin_job(mine, FIRST) }
           :: else
           fi;
           choose();
           d_step {
               waits = false;
               go_on();
               if
               :: at == begins -> answered()
               :: else
               fi;
               decide()
           }
       }
    :: d_step { step == VERIFY -> verify(); decide() }
    :: d_step {
           waits && LOCKED_OUT && (LOCKED_OUT_BY_APPLICATION || faults > 0) ->
           faults = (LOCKED_OUT_BY_APPLICATION -> faults : faults - 1);
           waits = false;
           verdict = FAIL;
           decide()
       }
    :: atomic {
           step == IDLE && (at_work == 0 || faults > 0) && (RECOVERABLE(0) || RECOVERABLE(PROMPTS - 1)) ->
           faults = (at_work == 0 -> faults : faults - 1);
           if
           :: RECOVERABLE(0) -> begin_job(0, RECOVER)
           :: RECOVERABLE(PROMPTS - 1) -> begin_job(PROMPTS - 1, RECOVER)
           fi
       }
    /* the answer is lost */
    :: atomic {
           SENDS && !waits && (at == begins || at == settles) && faults > 0 ->
           faults--;
           if
           :: late == IDLE -> late = (at == settles -> SETTLE : step); late_p = p
           :: true
           fi;
           printf("%d gets no answer to ", me);
           printm(step);
           printf("\n");
           at = begins;
           answer = NOTHING;
           if
           :: true /* the step is sent again, on a new connection */
           :: true -> /* promptd was killed, and has a spool */
               todo = todo || (!recovers && without != spool_keeps_until_outcome);
               end_job()
           :: true -> /* or has none */
               outcome[me] = (recovers -> outcome[me] : lost);
               end_job()
           fi
       }
    od
}

/* --- the end ---------------------------------------------------------------------------------------------------- */

/* Nobody can do anything any more: all is settled, undone or reported, every message has its outcome, and the interview
 * does not wait; but for a promptd without a spool, which loses its message when it is killed. */
#define UNSETTLED_IS_REPORTED(q) assert(!evidence[q] || (prompt[q] && reported_orphan[q] && keeps_prompt))
#define HAS_OUTCOME(who, q)                                                                                            \
    assert(outcome[who] != none);                                                                                      \
    assert(outcome[who] != stored || settled[q] || deleted_by_application[q])

proctype Judge()
{
    atomic {
        timeout ->
        assert(ALL_UNLOCKED && running == 0);
        FOR_EACH_PROMPT(UNSETTLED_IS_REPORTED);
        HAS_OUTCOME(1, 0);
        HAS_OUTCOME(2, PROMPTS - 1);
        assert(status != enhancing || reported_stuck || regenerated || (outcome[1] == lost && outcome[2] == lost))
    }
}

init
{
    atomic {
        make_world();
        if
        :: true
        :: faults > 0 -> faults--; keeps_status = true
        :: faults > 0 -> faults--; keeps_prompt = true
        fi;
        run Server();
        run Application();
        run Promptd(1, 0);
        run Promptd(2, PROMPTS - 1);
        run Late(3);
        run Judge()
    }
}
