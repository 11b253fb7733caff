// See choice.h.
#include "edge/choice.h"

#include "base/list.h"
#include "exchange/hold.h"
#include "exchange/listener_plugins.h"
#include "filter/opening.h"
#include "io/loop.h"
#include "io/tls.h"
#include "link/resources.h"
#include "route/listener.h"

#include <stdlib.h>

struct moon_choice {
    struct moon_opening opening;
    struct moon_hold *hold;
    const struct moon_bind *bind;
    struct moon_stream *stream; // TLS; the handshake's
};

static struct moon_choice *choice_of(struct moon_opening *opening)
{
    return MOON_CONTAINER(opening, struct moon_choice, opening);
}

static void resume(struct moon_opening *opening)
{
    moon_tls_choose_again(choice_of(opening)->stream);
}

static const char *give(struct moon_opening *opening, const struct moon_opening_gift *gift)
{
    struct moon_tls_gift given = {gift->name, gift->cert, gift->key};
    return moon_tls_give(choice_of(opening)->stream, &given);
}

static const struct moon_opening_ops opening_ops = {.resume = resume, .give = give};

// The first time: the name has chosen a listener, whose filters are asked. False: it has none.
static bool begin(struct moon_choice *choice, const struct moon_tls_hello *hello)
{
    struct moon_opening *opening = &choice->opening;
    const struct moon_hold *hold = choice->hold;
    int index = moon_bind_ender(hold->listeners, choice->bind, hello->terms);
    opening->chain = moon_listener_plugins_certificate(hold->listener_plugins, index);
    opening->listener = moon_slice_from(hold->listeners->listeners[index].name);
    moon_stream_address(choice->stream, true, &opening->client);
    return opening->chain != NULL;
}

static enum moon_tls_choice on_choose(void *owner, const struct moon_tls_hello *hello)
{
    struct moon_choice *choice = owner;
    struct moon_opening *opening = &choice->opening;
    if (!opening->chain && !begin(choice, hello))
        return MOON_TLS_CHOICE_MADE;
    opening->sni = hello->sni;
    opening->alpn = hello->alpn;
    switch (moon_opening_certificate(opening)) {
    case MOON_NEXT:
    case MOON_DONE:
        return MOON_TLS_CHOICE_MADE;
    case MOON_WAIT:
        return MOON_TLS_CHOICE_LATER;
    case MOON_FAIL:
        break;
    }
    return opening->is_declined ? MOON_TLS_CHOICE_DECLINED : MOON_TLS_CHOICE_FAILED;
}

static bool is_wanted(const struct moon_hold *hold, const struct moon_bind *bind)
{
    for (uint32_t i = 0; i < bind->member_count; i++)
        if (moon_listener_plugins_certificate(hold->listener_plugins, bind->members[i]))
            return true;
    return false;
}

struct moon_choice *moon_choice_new(struct moon_resources *res, struct moon_hold *hold,
                                    unsigned bind, struct moon_stream *stream)
{
    const struct moon_bind *at = &hold->listeners->binds[bind];
    if (!is_wanted(hold, at))
        return NULL;
    struct moon_choice *choice = calloc(1, sizeof *choice);
    if (!choice)
        abort();
    choice->hold = moon_hold_ref(hold);
    choice->bind = at;
    choice->stream = stream;
    choice->opening.ops = &opening_ops;
    choice->opening.loop = res->loop;
    choice->opening.worker = res->worker;
    moon_tls_set_chooser(stream, on_choose, choice);
    return choice;
}

void moon_choice_free(struct moon_choice *choice)
{
    if (!choice)
        return;
    moon_opening_cancel(&choice->opening);
    moon_hold_unref(choice->hold);
    free(choice);
}
