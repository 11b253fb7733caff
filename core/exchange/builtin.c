// Built-in upstreams: something inside the binary answers where a backend would, at once or after a wait.
#include "exchange/exchange_priv.h"
#include "upstream/upstream.h"

void moon_exchange_ask_builtin(struct moon_exchange *ex)
{
    const struct moon_builtin *builtin = ex->upstream->builtin;
    enum moon_verdict verdict = builtin->answer(&ex->flow, builtin->owner, &ex->builtin_state);
    ex->builtin_waits = verdict == MOON_WAIT;
    switch (verdict) {
    case MOON_WAIT:
        return;
    case MOON_DONE:
        moon_response_start(ex);
        return;
    case MOON_NEXT:
    case MOON_FAIL:
        moon_exchange_answer(ex, 500, "a built-in upstream failed");
        return;
    }
}

void moon_exchange_cancel_builtin(struct moon_exchange *ex)
{
    if (!ex->builtin_waits)
        return;
    const struct moon_builtin *builtin = ex->upstream->builtin;
    ex->builtin_waits = false;
    if (builtin->cancel)
        builtin->cancel(&ex->flow, builtin->owner, ex->builtin_state);
}
