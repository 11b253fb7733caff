// The body of struct moon_call and the seams between its files:
//   call.c  life, the result    call_request.c  what is asked, checked and copied    call_attempt.c  addresses, links, events
#pragma once

#include "base/address.h"
#include "exchange/call.h"
#include "exchange/exchange_priv.h"
#include "upstream/names.h"

enum { CALL_ADDRESS_MAX_COUNT = 8 }; // of a name, that one call may try

enum call_step {
    CALL_NAME,  // waits for the addresses of a host name
    CALL_LINK,  // waits at the limit of the upstream
    CALL_ASKED, // a link is lent; the request goes out, the response comes
    CALL_DONE,  // the result stands
};

struct moon_call {
    struct moon_service *service;
    struct moon_list node; // in service->calls until it is done
    void (*done)(void *owner, struct moon_call *call);
    void *owner;
    struct moon_task task; // tells done
    struct moon_arena *arena;
    struct moon_hold *hold; // what `upstream` belongs to; NULL without one
    const struct moon_upstream *upstream;
    struct moon_head request, response;
    struct moon_framing framing;
    struct moon_slice host;           // a name; empty when the address is known
    struct moon_address host_address; // its port, and the address where the URL has one
    char *body;                       // malloc'd, until the call is done
    size_t body_len, sent_len;
    struct moon_name_wait name_wait;
    struct moon_waiter waiter;
    struct moon_timer deadline, step_timer; // of the call; of connecting, or of the wait at a limit
    struct moon_lane *lane;
    struct moon_tls_client *tls; // a reference; NULL: the worker's
    struct moon_lease lease;     // of `lane`, or of the attempt that failed
    const struct moon_endpoint_state *avoid;
    struct moon_address addresses[CALL_ADDRESS_MAX_COUNT]; // where there is no upstream
    uint32_t address_count, address_at;
    uint32_t timeout_ms, connect_timeout_ms;
    size_t body_max_len;
    char *answer; // malloc'd
    size_t answer_len, answer_cap;
    size_t charged_len; // of body and answer, in the budget of buffers
    int err;
    uint8_t step;                                      // enum call_step
    uint8_t attempt_count, guess_count, interim_count; // of attempts those after a wrong guess
    // a connection that stood failed the last attempt: the next has a new one; it is no more, others may be dead as well
    bool wants_fresh : 1, was_lost : 1;
    bool goes_back : 1; // the next attempt goes where the last one went
    bool is_secure : 1; // https
    bool has_host : 1;  // Host does not depend on the endpoint
    bool is_sent : 1;   // the request is whole in the link's queue
    bool is_head_read : 1;
};

// call_request.c: fills the request of a new call. 0 or an error as of moon_call_start.
int moon_call_request_init(struct moon_call *call, const struct moon_call_args *args);

// call.c
// The call is over; harmless on one that is. `done` is told by the task.
void moon_call_finish(struct moon_call *call, int err);

// call_attempt.c
void moon_call_attempt_start(struct moon_call *call);
// Gives up whatever is waited for, and the link; `reuse` only after a whole response.
void moon_call_attempt_stop(struct moon_call *call, bool reuse);
