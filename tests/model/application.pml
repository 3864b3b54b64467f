/* SPDX-License-Identifier: MIT */
/* The application, to which interviews belong, and the server, which may crash. */

#define ON_DISK(q) (disk_prompt[q] == prompt[q] && disk_evidence[q] == evidence[q])
#define IS_ON_DISK (disk_status == status && ON_DISK(0) && ON_DISK(PROMPTS - 1))
#define UNLOCKED(q) (prompt_lock[q] == FREE && evidence_lock[q] == FREE)
#define ALL_UNLOCKED (interview_lock == FREE && UNLOCKED(0) && UNLOCKED(PROMPTS - 1))
#define LOST(q) prompt[q] = disk_prompt[q]; evidence[q] = disk_evidence[q]

/* Statements that run meanwhile would have done nothing: as if they had not begun. */
proctype Server()
{
end:
    do
    :: atomic {
           !IS_ON_DISK && running == 0 && ALL_UNLOCKED && MAY_FAIL ->
           SPEND_FAULT;
           d_step {
               status = disk_status;
               FOR_EACH_PROMPT(LOST);
               printf("server crashes");
               tell_rows();
               FOR_EACH_PROMPT(PROMISED)
           }
       }
    od
}

inline application_commits()
{
    flush();
    printf("application commits");
    tell_rows();
    FOR_EACH_PROMPT(PROMISED)
}

inline application_deletes(q)
{
    deleted_by_application[q] = deleted_by_application[q] || prompt[q];
    excused[q] = excused[q] | sees_prompt[q];
    delete_prompt(q)
}

#ifdef ANYBODY
#define LEFT(budget) true
#define SPEND(budget) skip
#else
#define LEFT(budget) (budget > 0)
#define SPEND(budget) budget--
#endif

proctype Application()
{
end:
    do
    /* moves the interview on */
    :: d_step {
           interview_lock == FREE && (status == enhancing || status == ready) ->
           status = (status == ready -> in_progress : timed_out);
           application_commits()
       }
    /* wants another prompt */
    :: d_step {
           LEFT(regenerations) && interview_lock == FREE && status != enhancing && status != missing ->
           SPEND(regenerations);
           regenerated = true;
           reported_failed = false;
           status = enhancing;
           application_commits()
       }
    /* locks the row for a while: for update, for which it would wait for an insert, or for no key update */
    :: d_step {
           LEFT(locks) && interview_lock == FREE && status != missing ->
           SPEND(locks);
           for_update = prompt_lock[0] == FREE && prompt_lock[PROMPTS - 1] == FREE;
           interview_lock = APPLICATION;
           printf("application locks the interview\n")
       };
       d_step {
           interview_lock = FREE;
           for_update = false;
           printf("application is done with it\n")
       }
    /* deletes the prompt, and commits, or does not */
    :: d_step {
           LEFT(deletions) && prompt[0] && prompt_lock[0] == FREE ->
           SPEND(deletions);
           prompt_lock[0] = APPLICATION
       };
       if
       :: d_step {
              prompt_lock[0] = FREE;
              application_deletes(0);
              application_commits()
          }
       :: prompt_lock[0] = FREE
       fi
    /* deletes interview and prompt */
    :: d_step {
           LEFT(deletions) && PROMPTS == 1 && interview_lock == FREE && prompt_lock[0] == FREE && status != missing ->
           SPEND(deletions);
           application_deletes(0);
           status = missing;
           application_commits()
       }
#ifndef ANYBODY
    :: break
#endif
    od
}
