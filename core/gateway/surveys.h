// /connections: one question to every worker, by mailbox, and one answer when all have come back or a second is over.
//
//   asked --every worker has answered--> told, freed
//     '----a second is over-----------> told with the workers that are missing --the last of them answers--> freed
//
// All of it belongs to the control thread.
#pragma once

#include "base/list.h"
#include "base/slice.h"

#include <stdbool.h>

struct moon_admin_wait;
struct moon_gateway;
struct moon_mailbox;

struct moon_surveys {
    struct moon_gateway *gateway;
    struct moon_mailbox *mailbox;
    struct moon_list all;
};

void moon_surveys_init(struct moon_surveys *surveys, struct moon_gateway *gateway);
// No worker runs any more.
void moon_surveys_fini(struct moon_surveys *surveys);
// `query`: "limit=N", or empty. False: it is neither; then `wait` is never told. Never calls back before it returns.
bool moon_surveys_ask(struct moon_surveys *surveys, struct moon_slice query,
                      struct moon_admin_wait *wait);
