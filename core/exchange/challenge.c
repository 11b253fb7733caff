// See challenge.h.
#include "exchange/challenge.h"

#include "base/arena.h"
#include "exchange/exchange_priv.h"
#include "io/tls.h"

#include <string.h>

bool moon_exchange_answer_challenge(struct moon_exchange *ex)
{
    static const struct moon_slice place = MOON_SLICE("/.well-known/acme-challenge/");
    struct moon_slice path = ex->request.target.path;
    enum moon_method method = ex->request.method_id;
    char answer[MOON_TLS_CHALLENGE_LEN];
    if (!ex->res->tls || !moon_tls_has_challenges(ex->res->tls) ||
        !moon_slice_starts(path, place) ||
        (method != MOON_METHOD_GET && method != MOON_METHOD_HEAD) ||
        !moon_tls_challenge_find(ex->res->tls, moon_slice_skip(path, place.len), answer))
        return false;
    struct moon_slice body =
        moon_arena_try_copy(ex->flow.arena, (struct moon_slice){answer, strlen(answer)});
    if (!body.ptr)
        return false;
    moon_response_local(ex, 200, MOON_SLICE("application/octet-stream"), body);
    moon_response_start(ex);
    return true;
}
