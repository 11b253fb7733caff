// See opening.h.
#include "filter/opening.h"

#include "filter/chain.h"

enum moon_verdict moon_opening_certificate(struct moon_opening *opening)
{
    for (; opening->at < opening->chain->count; opening->at++) {
        const struct moon_filter *filter = &opening->chain->filters[opening->at];
        if (!filter->type->certificate)
            continue;
        if (!opening->is_waiting)
            opening->state = NULL;
        opening->is_waiting = false;
        enum moon_verdict verdict =
            filter->type->certificate(opening, filter->conf, &opening->state);
        opening->is_waiting = verdict == MOON_WAIT;
        if (verdict != MOON_NEXT)
            return verdict;
    }
    return MOON_NEXT;
}

void moon_opening_cancel(struct moon_opening *opening)
{
    if (!opening->is_waiting)
        return;
    const struct moon_filter *filter = &opening->chain->filters[opening->at];
    opening->is_waiting = false;
    if (filter->type->cancel_opening)
        filter->type->cancel_opening(opening, filter->conf, opening->state);
}
