/* SPDX-License-Identifier: MIT */
/*
 * Clients that send any statement, at any time, in any order, for ever; up to three run at once. Whatever promptd
 * decides is among the things that happen here: so what the statements promise, they promise by themselves.
 *
 * An interview that is `failed` is as good as awaiting here, so that mark and recover add nothing.
 */

proctype Anybody(byte me)
{
    STATEMENT;
end:
    do
    :: atomic {
           CAN_GO_ON ->
           if
           :: step == IDLE && prompt_lock[p] == FREE -> step = INSERT
           :: step == IDLE -> step = SETTLE
           :: step == IDLE -> step = UNDO
           :: step == IDLE && me == 1 -> step = TRANSACT /* they exclude each other */
           :: step != IDLE
           fi;
           choose();
           d_step {
               go_on();
               if
               :: at == begins -> step = IDLE; answer = NOTHING
               :: else
               fi;
               keeps_status = false;
               keeps_prompt = false
           }
       }
    od
}

init
{
    atomic {
        make_world();
        run Server();
        run Application();
        run Anybody(1);
        run Anybody(2);
        run Anybody(3)
    }
}
