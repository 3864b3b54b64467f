/* SPDX-License-Identifier: MIT */
/*
 * The statements of src/storage/statements_sql.c, in their moments. The letters are their parts there.
 *
 *     insert      k, p | u and an asynchronous commit; then, in the same flush, settle
 *     settle      snapshot | i, u | d, m and commit; or an error, where m does not move what it should
 *     recover     the same; `failed` does not count as awaiting
 *     undo        snapshot | u | p, g, d and commit
 *     mark        all at once, for one row
 *     transact    snapshot | i | p, m, then transact_clean_sql with a snapshot of its own, and commit
 *
 * What sees nothing to do in its snapshot ends there. Locks last until the end, which is a commit or an error.
 */

#define STATEMENT                                                                                                      \
    mtype step = IDLE;                                                                                                 \
    mtype at = begins;                                                                                                 \
    mtype answer = NOTHING;                                                                                            \
    byte p; /* which prompt */                                                                                         \
    bool saw_prompt, saw_evidence, saw_ready; /* in the snapshot */                                                    \
    bool holds, changes, fails

#ifdef ANYBODY
bool keeps_status, keeps_prompt; /* a trigger or a policy swallows the change: chosen anew for each commit */
#define MAY_FAIL true
#define SPEND_FAULT skip
#else
bool keeps_status, keeps_prompt; /* a trigger or a policy swallows every change */
#define MAY_FAIL (faults > 0)
#define SPEND_FAULT faults--
#endif

#define SEE(rows, is_there) rows[p] = (is_there -> rows[p] | BIT(me) : rows[p])
#define SEES(rows) (rows[p] & BIT(me))
#define FORGET(rows) rows[p] = rows[p] & ~BIT(me)
#define RELEASE(lock) lock = (lock == me -> FREE : lock)

inline end_statement()
{
    RELEASE(interview_lock);
    RELEASE(prompt_lock[p]);
    RELEASE(evidence_lock[p]);
    FORGET(sees_prompt);
    FORGET(sees_evidence);
    FORGET(sees_version);
    FORGET(excused);
    saw_prompt = false;
    saw_evidence = false;
    saw_ready = false;
    holds = false;
    changes = false;
    fails = false;
    at = (at == ends -> begins : at);
    running--;
    FOR_EACH_PROMPT(PROMISED)
}

/* --- rows ------------------------------------------------------------------------------------------------------- */

/* `for update skip locked` gets it. */
#define EVIDENCE_CAN_BE_LOCKED (evidence[p] && SEES(sees_evidence) && evidence_lock[p] == FREE)

inline lock_evidence_if(condition)
{
    evidence_lock[p] = ((condition) && evidence[p] && evidence_lock[p] == FREE -> me : evidence_lock[p])
}

inline delete_evidence_if(condition)
{
    if
    :: (condition) && evidence[p] ->
        evidence[p] = false;
        sees_evidence[p] = 0;
        sees_version[p] = 0
    :: else
    fi
}

inline delete_prompt(q)
{
    prompt[q] = false;
    sees_prompt[q] = 0;
    settled[q] = false
}

inline flush_if(synchronous)
{
    if
    :: synchronous -> flush()
    :: else
    fi
}

#define AWAITING (status == enhancing || (status == failed && GUARD(recover_spares_failed, step != RECOVER)))
#define MAY_BE_READY (AWAITING || status == ready)

/* --- insert ----------------------------------------------------------------------------------------------------- */

/* k passes over an interview that is locked for update. Its own `for key share` lasts as long as the prompt's lock. */
inline insert_prompt()
{
    running++;
    holds = status != missing && !for_update;
    changes = holds && !prompt[p];
    prompt_lock[p] = (changes -> me : FREE);
    prompt[p] = prompt[p] || (changes && without == insert_writes_evidence);
    evidence[p] = evidence[p] || (holds && !changes && without == insert_marks_only_its_own);
    at = (changes -> inserted : settles)
}

inline insert_evidence()
{
    prompt[p] = true;
    evidence[p] = true;
    sees_version[p] = (without == insert_renews_leftover -> sees_version[p] : 0);
    answer = CHANGED;
    at = settles
}

/* --- settle, recover -------------------------------------------------------------------------------------------- */

inline settle_begin()
{
    running++;
    saw_ready = status == ready;
    SEE(sees_prompt, prompt[p]);
    SEE(sees_evidence, evidence[p]);
    answer = (without == outcome_needs_settle -> answer : NOTHING);
    at = (MAY_BE_READY && GUARD(settle_needs_evidence, evidence[p]) && GUARD(settle_needs_prompt, prompt[p]) ->
          seen : ends)
}

inline settle_lock()
{
    holds = GUARD(settle_locks_interview, interview_lock == FREE) && status != missing &&
            GUARD(settle_judges_locked_row, MAY_BE_READY) &&
            GUARD(settle_needs_evidence, GUARD(settle_locks_evidence, EVIDENCE_CAN_BE_LOCKED));
    interview_lock = (holds && without != settle_locks_interview -> me : interview_lock);
    lock_evidence_if(holds);
    FORGET(sees_evidence);
    at = (holds -> locked : ends)
}

/* m finds the interview by the snapshot and judges it again: one that was ready then, or is now, is not moved. The look
 * at the prompt is as old as the snapshot. That the application has deleted it since is excused, for it might as well
 * have done so right after the commit; that promptd has is not. */
inline settle_commit()
{
    changes = status == ready || (!saw_ready && !keeps_status);
    assert(!changes || prompt[p] || SEES(excused));
    assert(!changes || AWAITING || status == ready);
    assert(!changes || step != RECOVER || !reported_failed);
    reported_failed = reported_failed && !changes;
    status = (changes -> ready : status);
    settled[p] = (changes -> prompt[p] : settled[p]);
    delete_evidence_if(changes || without == settle_keeps_if_not_moved);
    flush_if(without != settle_commit_is_synchronous);
    answer = (changes -> CHANGED : NOT_CHANGED);
    at = ends
}

/* --- undo ------------------------------------------------------------------------------------------------------- */

inline undo_begin()
{
    running++;
    saw_prompt = prompt[p];
    SEE(sees_prompt, prompt[p]);
    SEE(sees_evidence, evidence[p]);
    SEE(sees_version, evidence[p]);
    at = (GUARD(undo_needs_evidence, evidence[p]) || (without == undo_not_by_status && status != ready) -> seen : ends)
}

inline undo_lock()
{
    holds = GUARD(undo_needs_evidence, GUARD(undo_locks_evidence, EVIDENCE_CAN_BE_LOCKED)) ||
            without == undo_not_by_status;
    lock_evidence_if(holds);
    at = (holds -> locked : ends)
}

inline undo_commit()
{
    changes = prompt[p] && SEES(sees_prompt) && !keeps_prompt;
    if
    :: changes ->
        assert(!settled[p]);
        delete_prompt(p)
    :: else
    fi;
    changes = changes || UNLESS_WITHOUT(undo_removes_leftover,
                                        !saw_prompt && GUARD(undo_checks_version, SEES(sees_version)));
    delete_evidence_if(changes || without == undo_keeps_if_not_deleted);
    flush();
    answer = (changes -> CHANGED : NOT_CHANGED);
    at = ends
}

/* --- mark ------------------------------------------------------------------------------------------------------- */

inline mark_commit()
{
    running++;
    holds = interview_lock == FREE && (status == enhancing || (without == mark_spares_the_rest && status != missing));
    changes = holds && !keeps_status;
    assert(!changes || status == enhancing);
    status = (changes -> failed : status);
    flush_if(without != mark_commit_is_synchronous);
    answer = (changes -> CHANGED : (holds -> NOT_CHANGED : NOTHING));
    at = ends
}

/* --- transact --------------------------------------------------------------------------------------------------- */

inline transact_begin()
{
    running++;
    saw_ready = status == ready;
    saw_evidence = evidence[p];
    at = (MAY_BE_READY -> seen : ends)
}

inline transact_lock()
{
    holds = interview_lock == FREE && MAY_BE_READY;
    interview_lock = (holds -> me : interview_lock);
    at = (holds || (without == transact_needs_interview && status != missing) -> locked : ends)
}

inline transact_commit()
{
    changes = holds && (status == ready || (!saw_ready && !keeps_status));
    if
    :: prompt[p] -> answer = NOTHING
    :: !prompt[p] && GUARD(transact_fails_if_not_moved, changes || !holds) ->
        prompt[p] = true;
        settled[p] = changes;
        status = (changes -> ready : status);
        delete_evidence_if(UNLESS_WITHOUT(transact_removes_leftover, saw_evidence || without != transact_looks_again));
        flush();
        answer = CHANGED
    :: else -> answer = NOT_CHANGED
    fi;
    at = ends
}

/* --- moments ---------------------------------------------------------------------------------------------------- */

/* Writes wait for whoever has written or locked the row: the insert of a prompt, undo's delete of the one that it sees,
 * the insert of evidence, transact's delete of it. What the statement has locked before is its own. */
#define IS_MINE(lock) (lock == FREE || lock == me)
#define CAN_GO_ON                                                                                                      \
    (((at != inserted && at != locked) || IS_MINE(evidence_lock[p])) &&                                                \
     (at != locked || step == UNDO || IS_MINE(interview_lock)) &&                                                      \
     (step != INSERT || at != begins || prompt_lock[p] == FREE) &&                                                     \
     (step != TRANSACT || at != locked || prompt_lock[p] == FREE) &&                                                   \
     (step != UNDO || at != locked || prompt_lock[p] == FREE || !SEES(sees_prompt)))

#define SETTLES (step == INSERT || step == SETTLE || step == RECOVER)

/* How it goes on, where that is not certain. */
inline choose()
{
    if
    :: (at == inserted || at == locked || step == MARK) && MAY_FAIL -> SPEND_FAULT; fails = true
    :: true
    fi;
#ifdef ANYBODY
    if
    :: at == locked -> keeps_status = true; keeps_prompt = true
    :: keeps_status = false; keeps_prompt = false
    fi
#endif
}

/* The next moment. */
inline go_on()
{
    printf("%d ", me);
    printm(step);
    printf(" ");
    printm(at);
    if
    :: fails -> running = (step == MARK -> running + 1 : running); answer = FAILED; at = ends
    :: else ->
        if
        :: step == INSERT && at == begins -> insert_prompt()
        :: step == INSERT && at == inserted -> insert_evidence()
        :: step == INSERT && at == settles -> settle_begin()
        :: (step == SETTLE || step == RECOVER) && at == begins -> settle_begin()
        :: SETTLES && at == seen -> settle_lock()
        :: SETTLES && at == locked -> settle_commit()
        :: step == UNDO && at == begins -> undo_begin()
        :: step == UNDO && at == seen -> undo_lock()
        :: step == UNDO && at == locked -> undo_commit()
        :: step == MARK -> mark_commit()
        :: step == TRANSACT && at == begins -> transact_begin()
        :: step == TRANSACT && at == seen -> transact_lock()
        :: step == TRANSACT && at == locked -> transact_commit()
        fi
    fi;
    printf(" -> ");
    printm(at);
    tell_rows();
    if
    :: at == ends || at == settles -> end_statement()
    :: else
    fi
}
