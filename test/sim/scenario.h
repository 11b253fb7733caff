// One scenario: what chance decided for a seed, the peers that act it out, and their verdict. Shared by the client side, the
// backend side and the runner.
//
// Every request has a tag. The bodies both ways are derived from it, so each side can judge every byte it gets, and a byte that
// belongs to another request is seen at once. What the backend shall do stands in the request's X-Plan field.
#pragma once

#include "test/sim/message.h"
#include "test/sim/peer.h"
#include "test/sim/stage.h"

enum {
    BACKEND_MAX_COUNT = 4,
    CLIENT_MAX_COUNT = 6,
    REQUEST_MAX_COUNT = 8,
    FIRST_PORT = 7000,
    REQUEST_MAX_MS = 60000, // from its first byte to its verdict
};

// What a scenario has more of than others, so that rare things meet.
enum theme {
    THEME_MIXED,
    THEME_EARLY, // long uploads, answered or reset before they are over
    THEME_REUSE, // short requests on links that backends close while they idle
    THEME_LONG,  // long bodies both ways, small buffers, slow peers
    THEME_LEAVE, // clients leave in the middle
    THEME_CROWD, // few descriptors
    THEME_COUNT,
};

// What the backend does with a request.
enum plan_end {
    PLAN_WHOLE,  // answers whole
    PLAN_CLOSE,  // the same, then closes
    PLAN_CUT,    // closes within the response
    PLAN_RESET,  // resets within the response
    PLAN_SILENT, // never answers
    PLAN_DROP,   // closes instead of answering
    PLAN_END_COUNT,
};

struct plan {
    enum message_framing framing; // of the response
    enum plan_end end;
    size_t len;       // of the response's body
    size_t cut_len;   // bytes of body before CUT and RESET
    unsigned wait_ms; // before the response
    bool is_early;    // answers before the request's body has come
    bool has_interim; // a 103 comes first
    bool is_empty;    // 204
};

enum request_state { REQUEST_WAITS, REQUEST_SENT, REQUEST_ANSWERED, REQUEST_LOST };

struct request {
    uint64_t tag;
    struct plan plan;
    const char *method;
    enum message_framing framing; // of the request
    size_t len;                   // of its body
    unsigned minor;               // HTTP/1.minor
    bool expects_continue;        // and does not wait for it
    bool has_trailers;
    bool is_nowhere; // no route matches
    enum request_state state;
    uint64_t sent_ms;
    unsigned seen_count; // by backends
};

struct scenario;

struct client {
    struct scenario *scenario;
    struct peer peer;
    struct moon_timer timer; // starts it
    struct message *answer;
    struct request requests[REQUEST_MAX_COUNT];
    unsigned request_count, next_send, next_answer, depth;
    size_t slow_len, slow_ms, body_at;
    size_t leave_after_len; // leaves once that much has come on a connection; 0: stays
    bool is_open, says_close;
};

struct backend {
    struct scenario *scenario;
    struct moon_socket *socket;
    size_t slow_permille;
};

struct scenario {
    struct stage stage;
    uint64_t seed;
    struct client clients[CLIENT_MAX_COUNT];
    struct backend backends[BACKEND_MAX_COUNT];
    struct moon_list connections; // of the backends
    struct moon_timer drain_timer;
    unsigned client_count, backend_count;
    unsigned idle_close_ms; // backends close what idles longer; 0: never
    unsigned answered_count, lost_count, error_count;
    enum theme theme;
    bool is_calm; // nothing goes wrong: every request is answered by its backend
    bool has_drain;
    bool is_verbose;
    char problem[256];
};

void scenario_fail(struct scenario *scenario, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
uint64_t scenario_below(struct scenario *scenario, uint64_t bound); // bound > 0
// The request of that tag, NULL when there is none.
struct request *scenario_request(struct scenario *scenario, uint64_t tag);

// scenario_body.c: bytes of a body. `direction`: 0 request, 1 response.
void body_add(struct text *text, uint64_t tag, int direction, size_t from, size_t len);
bool body_matches(uint64_t tag, int direction, size_t from, const char *bytes, size_t len);
// The body in its framing, up to `len` bytes of it; the end of a chunked body only with `is_whole`.
void body_add_framed(struct text *text, const struct request *request, int direction, size_t len,
                     bool is_whole, size_t chunk_len);

// scenario_client.c
void client_start(struct client *client, uint64_t after_ms);
bool client_is_done(const struct client *client);
void client_fini(struct client *client);

// scenario_backend.c
void backend_start(struct backend *backend, uint16_t port);
void backends_fini(struct scenario *scenario);
