// Name desk: where workers have host names resolved that stand in no configuration. On the control thread, because that is where
// the resolver lives; questions and answers go by mailbox.
//
//   worker (names.c) --ask--> desk: A and AAAA at once --both answered--> the worker's mailbox
//
// It remembers nothing: every worker keeps what it was told (names.h). Names of the configuration are discovery's.
#pragma once

#include "base/slice.h"
#include "io/mailbox.h"

#include <stddef.h>
#include <stdint.h>

struct moon_address;
struct moon_log;
struct moon_loop;
struct moon_name_desk;
struct moon_snapshot;

enum { MOON_NAME_ADDRESS_MAX_COUNT = 32 }; // of one name

// The asker's, lent to the desk from ask until it comes back.
struct moon_name_question {
    struct moon_message message;
    struct moon_mailbox *answer_to; // gets `message`
    struct moon_slice host;
    // The answer. 0: there are addresses; MOON_ENAME: there is no such name, or none with an address; else nothing is known.
    int err;
    struct moon_address *addresses; // malloc'd, the asker's; ports are 0
    size_t count;
    uint32_t ttl_s;
};

struct moon_name_desk *moon_name_desk_new(struct moon_loop *loop, const struct moon_log *log);
// Its settings of the resolver hold from now on. Takes a reference. Before the first question.
void moon_name_desk_use(struct moon_name_desk *desk, struct moon_snapshot *snapshot);
// When no loop runs any more, and before the askers are freed: what is open stays unanswered. NULL is fine.
void moon_name_desk_free(struct moon_name_desk *desk);
// Thread safe.
void moon_name_desk_ask(struct moon_name_desk *desk, struct moon_name_question *question);
