// Mailboxes of the simulated world: first in first out each, which of a loop's comes next is chance.
#include "io/sim_priv.h"

#include <stdlib.h>

struct sim_mailbox {
    struct moon_mailbox base; // first
    struct moon_list node;    // in loop->mailboxes
    struct sim_loop *loop;
    struct moon_list messages;
};

static void mailbox_free(struct moon_mailbox *base)
{
    struct sim_mailbox *mailbox = (struct sim_mailbox *)base;
    sim_world_of(mailbox->loop)->live_count--;
    moon_list_del(&mailbox->node);
    free(mailbox);
}

static void mailbox_post(struct moon_mailbox *base, struct moon_message *message)
{
    struct sim_mailbox *mailbox = (struct sim_mailbox *)base;
    moon_list_add_before(&mailbox->messages, &message->node);
}

static const struct moon_mailbox_ops mailbox_ops = {.free = mailbox_free, .post = mailbox_post};

struct moon_mailbox *sim_mailbox_new(struct moon_loop *loop,
                                     void (*on_message)(void *owner, struct moon_message *message),
                                     void *owner)
{
    struct sim_mailbox *mailbox = calloc(1, sizeof *mailbox);
    if (!mailbox)
        abort();
    mailbox->base = (struct moon_mailbox){&mailbox_ops, on_message, owner};
    mailbox->loop = sim_loop(loop);
    moon_list_init(&mailbox->messages);
    moon_list_add_before(&mailbox->loop->mailboxes, &mailbox->node);
    sim_world(loop->world)->live_count++;
    return &mailbox->base;
}

// A mailbox with mail, or NULL.
static struct sim_mailbox *choose(const struct sim_loop *loop, bool by_chance)
{
    struct sim_mailbox *chosen = NULL;
    unsigned count = 0;
    for (struct moon_list *at = loop->mailboxes.next; at != &loop->mailboxes; at = at->next) {
        struct sim_mailbox *mailbox = MOON_CONTAINER(at, struct sim_mailbox, node);
        if (moon_list_is_empty(&mailbox->messages))
            continue;
        if (!chosen || (by_chance && sim_below(sim_world_of(loop), ++count + 1) == 0))
            chosen = mailbox;
    }
    return chosen;
}

bool sim_mailboxes_have(const struct sim_loop *loop)
{
    return choose(loop, false) != NULL;
}

void sim_mailboxes_deliver(struct sim_loop *loop)
{
    struct sim_mailbox *mailbox;
    while ((mailbox = choose(loop, true)) != NULL) {
        struct moon_list *node = mailbox->messages.next;
        moon_list_del(node);
        sim_trace(sim_world_of(loop), 'm', 0, 0);
        mailbox->base.on_message(mailbox->base.owner,
                                 MOON_CONTAINER(node, struct moon_message, node));
        moon_loop_run_tasks(&loop->base);
    }
}
