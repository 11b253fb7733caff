// The body of struct moon_exchange and the seams between its files:
//   exchange.c  life, phases, the request side    attempt.c  the upstream side    response.c  the way back, own answers
//   forward.c   edits of the two heads            relay.c    tunnels              retry.c       retries, waits, deadlines
//   intake.c    the request's body, read or replaced before anything is forwarded
//   grpc_call.c calls of gRPC: their errors and timeouts
//   messages.c  tunnels whose WebSocket messages filters read
#pragma once

#include "base/buffer.h"
#include "exchange/action.h"
#include "exchange/exchange.h"
#include "exchange/hold.h"
#include "exchange/relay.h"
#include "filter/chain.h"
#include "http/grpc.h"
#include "http/head.h"
#include "io/loop.h"
#include "link/link.h"
#include "link/resources.h"
#include "upstream/pool.h"

enum moon_step {
    STEP_HEAD,    // the request head has not come yet
    STEP_REWRITE, // head phases, each may wait
    STEP_ACCESS,
    STEP_BUILTIN,       // a built-in answers once the request is here whole
    STEP_UPSTREAM,      // an attempt is under way, no response head yet
    STEP_HEADER_FILTER, // the response head is there, not sent yet
    STEP_RESPONSE,      // the response head was sent
    STEP_TUNNEL,        // filters read the messages of a WebSocket
    STEP_LOG,           // the lanes are given back
};

// What an exchange without a peer to wait for waits for.
enum moon_wait {
    WAIT_NONE,
    WAIT_LINK,  // the upstream is at its limit
    WAIT_PAUSE, // before a retry
    WAIT_HEAD,  // the response head, where the route bounds it
};

struct moon_intake;
struct moon_messages;

// How an attempt ended without a response.
struct moon_failure {
    int err;
    bool was_connected, had_input;
    bool was_lost; // a connection that stood is no more
};

struct moon_exchange {
    struct moon_flow flow; // first, so that a flow is its exchange
    struct moon_service *service;
    struct moon_resources *res;
    struct moon_hold *hold;               // what `action` belongs to; NULL before the head
    const struct moon_arrival *arrival;   // while `down` is there
    const struct moon_action *action;     // NULL when no route matched
    const struct moon_upstream *upstream; // chosen after access
    struct moon_lane *down, *up;          // NULL when gone
    struct moon_chain_run run;
    struct moon_messages *messages; // of the tunnel in STEP_TUNNEL; else NULL
    struct moon_intake *intake;     // NULL: no filter has read or replaced the request's body
    struct moon_head request, response;
    // of the head sent upstream, of the one sent downstream
    struct moon_framing request_framing, sent;
    struct moon_tls_facts *tls;   // a reference; NULL: plain
    struct moon_proxied *proxied; // of the flow
    struct moon_task task;        // goes on after resume; starts a tunnel
    struct moon_list node;        // in res->exchanges
    // request body sent so far, while it may be replayed; of it on this attempt, while it is replayed
    struct moon_buffer replay;
    size_t resent_len;
    struct moon_slice local_body; // of an own answer, not sent yet
    // gives what comes behind it; `next` NULL: nothing, or nothing more
    struct moon_body_source local_source;
    struct moon_headers request_trailers, response_trailers;
    struct moon_slice id;
    struct moon_slice grpc_told; // `grpc-status` of the response; NULL: none
    struct moon_slice asked_host, asked_path, asked_query; // as routed, before filters edit them
    struct moon_address endpoint;                          // of the last attempt
    uint64_t start_ns, sent_ns; // when the request came; when the last attempt began
    uint64_t upstream_us;       // from sent_ns to the response head
    void *builtin_state;        // of the built-in upstream that is asked
    struct moon_lease lease;    // of `up`, or of the attempt that failed
    // where the last attempt went; compared, never followed
    const struct moon_endpoint_state *avoid;
    struct moon_waiter waiter;
    struct moon_timer wait_timer, deadline;
    uint64_t budget_ms; // for the whole, from flow.start_ms on; 0: unbounded
    int listener;       // that has the request; -1: none
    uint8_t step;       // enum moon_step
    uint8_t wait;       // enum moon_wait
    // attempts; of them those that the route's `retry` made, and those that followed a wrong guess of the protocol
    uint8_t attempt_count, retry_count, guess_count;
    uint8_t interim_count;
    uint8_t grpc; // enum moon_grpc_kind: of the request as it came
    // enum moon_grpc_status of the next own answer, where its HTTP status says less; 0: by that
    uint8_t grpc_status;
    bool may_idle : 1;      // a call on a route that is for calls: its streams need not keep moving
    bool was_asked : 1;     // the request was understood, or refused
    bool was_forwarded : 1; // an upstream was chosen
    bool has_upstream_us : 1; // a response head came from it
    bool is_head_sent : 1;    // the final response head, or 101
    bool is_client_gone : 1;
    bool is_request_whole : 1;  // its end event came
    bool is_request_sent : 1;   // and went upstream
    bool keeps_replay : 1;      // `replay` is complete so far
    bool was_body_sent : 1;     // of its body something went upstream
    bool was_request_sent : 1;  // so it was in the attempt before
    bool is_resending : 1;      // what was sent before does not fit yet
    bool was_lost : 1;          // a connection that stood, under the last attempt
    bool is_local : 1;          // the response is our own answer
    bool is_response_whole : 1; // its end is there
    bool is_response_sent : 1;  // and was sent downstream
    bool has_fault : 1;         // the request itself is broken: no framing to rely on
    bool has_failed : 1;        // a filter failed on the response: its replacement is not filtered
    bool was_resumed : 1;
    bool was_aborted : 1; // by a filter; carried out by the task
    bool wants_tunnel : 1;
    bool is_over : 1;
    bool was_recorded : 1; // its line of the access log was written
    bool builtin_waits : 1;
    bool goes_back : 1;   // the next attempt goes where the last one went
    bool wants_fresh : 1; // a standing connection failed it: the next attempt has a new one
};

// exchange.c
// Breaks the exchange off where no answer can be given any more.
void moon_exchange_break(struct moon_exchange *ex);
// The response is through, or nothing more can be done: gives the lanes back and logs.
void moon_exchange_finish(struct moon_exchange *ex);
// The tunnel whose messages filters read is over.
void moon_exchange_tunnel_ended(struct moon_exchange *ex);
// Pushes what no event of the client brings through the request's filters: the body that a filter put in the place of the
// client's, and the end, once it is due.
void moon_exchange_push_request(struct moon_exchange *ex);
// Tells the client 100 Continue.
void moon_exchange_continue(struct moon_exchange *ex);
// routing.c
// The listener's plugins and the route's action. A request without a route goes on where the listener has plugins, which may
// answer it. False: it was answered.
bool moon_exchange_find_route(struct moon_exchange *ex, const struct moon_chain **front);
// The upstream, or NULL: it was answered why not.
const struct moon_upstream *moon_exchange_choose_upstream(struct moon_exchange *ex);
// flow.c
extern const struct moon_flow_ops moon_exchange_flow_ops;

// intake.c
// ops->read_request and ops->replace_request.
void moon_intake_read(struct moon_exchange *ex, const struct moon_body_reader *reader);
void moon_intake_replace(struct moon_exchange *ex, struct moon_slice bytes);
// A reader may be called: the hook that asked for it waits, and the reader does not.
bool moon_intake_is_read(const struct moon_exchange *ex);
// From the task: begins to read, or goes on. May answer.
void moon_intake_run(struct moon_exchange *ex);
// The client's bytes, or its end, for the reader, if there is one. Bytes taken. May answer.
size_t moon_intake_take(struct moon_exchange *ex, struct moon_slice bytes);
void moon_intake_end(struct moon_exchange *ex);
// The phase is over: nobody reads.
void moon_intake_stop(struct moon_exchange *ex);
bool moon_intake_is_replaced(const struct moon_exchange *ex);
// Bytes were read that nothing has taken the place of: there is nothing to forward.
bool moon_intake_is_lost(const struct moon_exchange *ex);
// What goes upstream is in memory whole, and can be sent again from its beginning (rewind).
bool moon_intake_is_kept(const struct moon_exchange *ex);
void moon_intake_rewind(struct moon_exchange *ex);
// What of the replacement was not pushed yet; empty when nothing was replaced.
struct moon_slice moon_intake_rest(const struct moon_exchange *ex);
void moon_intake_sent(struct moon_exchange *ex, size_t len);

// builtin.c
void moon_exchange_ask_builtin(struct moon_exchange *ex);
void moon_exchange_cancel_builtin(struct moon_exchange *ex);

// The response switches to WebSocket.
bool moon_exchange_is_websocket(const struct moon_exchange *ex);

// attempt.c
void moon_attempt_start(struct moon_exchange *ex);
// Goes on with an attempt that has no link yet; `is_again`: it has waited for one.
void moon_attempt_lend(struct moon_exchange *ex, bool is_again);
// Ends the attempt: tries again where that may be, else answers.
void moon_attempt_failed(struct moon_exchange *ex, const struct moon_failure *failure);
// Into the upstream lane; results as moon_flow_ops.pass.
ssize_t moon_attempt_send(struct moon_exchange *ex, struct moon_slice bytes, bool end);
// Gives the upstream lane up; `reuse` only when the exchange went through whole.
void moon_attempt_end(struct moon_exchange *ex, bool reuse);

// retry.c
bool moon_method_is_idempotent(enum moon_method method);
bool moon_retry_has_status(const struct moon_retry *retry, uint16_t status);
// True: the attempt that failed in this way is followed by another.
bool moon_retry_failed(struct moon_exchange *ex, const struct moon_failure *failure);
// True: the response whose head has come is thrown away for another attempt.
bool moon_retry_status(struct moon_exchange *ex);
void moon_wait_for_link(struct moon_exchange *ex, bool is_again);
// The request is sent: from now on the route's time for a response runs.
void moon_wait_for_head(struct moon_exchange *ex);
// Harmless when nothing is waited for.
void moon_wait_stop(struct moon_exchange *ex);
// The route's time for the whole exchange.
void moon_deadline_start(struct moon_exchange *ex);
void moon_deadline_stop(struct moon_exchange *ex);

// grpc_call.c
// From the request's head: is it a call, and how long may it take? -EINVAL: its `grpc-timeout` is malformed.
int moon_grpc_call_begin(struct moon_exchange *ex);
// The call's status, from the head or the trailers of a response.
void moon_grpc_call_note(struct moon_exchange *ex, const struct moon_headers *fields);
// Writes what is left of that time into the head that goes upstream, at each attempt. 0 or -ENOMEM.
int moon_grpc_call_forward(struct moon_exchange *ex);
// Makes an own answer with an error, which stands in ex->response, one of gRPC: 200, the status in the head ("trailers-only").
// Not 421, which tells the client to take another connection.
void moon_grpc_call_answer(struct moon_exchange *ex);
// A response that was begun ends with a status in its trailers, and the exchange with it. False: it can't.
bool moon_grpc_call_cut(struct moon_exchange *ex, uint16_t status, const char *cause);

// response.c
// The gateway's own answer; `cause` is static text that names it. Ignored when a response was begun (then it breaks off).
void moon_exchange_answer(struct moon_exchange *ex, uint16_t status, const char *cause);
// 500 for a filter that failed, as moon_exchange_answer. It names the exchange's id, under which the log says more.
void moon_exchange_fail(struct moon_exchange *ex, const char *cause);
// An answer with a body of its own; returns at once, the sending begins with moon_response_start.
void moon_response_local(struct moon_exchange *ex, uint16_t status, struct moon_slice type,
                         struct moon_slice body);
// The same with a body that comes from `source`.
void moon_response_local_from(struct moon_exchange *ex, uint16_t status, struct moon_slice type,
                              const struct moon_body_source *source);
// The response head stands in ex->response: header_filter, then it is sent.
void moon_response_start(struct moon_exchange *ex);
// Goes on after header_filter has waited.
void moon_response_continue(struct moon_exchange *ex, enum moon_verdict verdict);
// Goes on with the body: what waits of an own answer, and the end.
void moon_response_push(struct moon_exchange *ex);
// Through the filters of the body, where it has any, and on with moon_response_send; results as moon_flow_ops.pass.
ssize_t moon_response_pass(struct moon_exchange *ex, struct moon_slice bytes, bool end);
// Into the downstream lane; results as moon_flow_ops.pass.
ssize_t moon_response_send(struct moon_exchange *ex, struct moon_slice bytes, bool end);

// forward.c
// Before the first filter: takes off what the client's Connection named, adds X-Forwarded-* and the like. So policy sees what
// the backend will see, filters may edit all of it, and a client cannot have a filter's fields taken away. 0 or -ENOMEM.
int moon_forward_begin(struct moon_exchange *ex);
// Edits the request head for its way upstream and says how it is framed. 0 or -ENOMEM.
int moon_forward_request(struct moon_exchange *ex, struct moon_framing *framing);
// Edits the response head for its way downstream, into ex->sent. 0 or -ENOMEM.
int moon_forward_response(struct moon_exchange *ex);
// The Date of now.
struct moon_slice moon_forward_date(struct moon_service *service);
struct moon_slice moon_exchange_id(struct moon_exchange *ex);
// No body follows this response head, whatever its fields say.
bool moon_response_is_bodiless(const struct moon_exchange *ex);
// Filters read this response's body, were there one: its length and digests are not what the upstream said.
bool moon_response_is_filtered(const struct moon_exchange *ex);

// survey.c
void moon_relay_identify(const struct moon_exchange *ex, struct moon_relay_identity *out);
