/* The source's DDL in a lane: what a message of the capture means is done inside the transaction of
 * the rows around it. From then on until that transaction ends tables are described over the lane's
 * own connection: another one wouldn't see them, and would wait for their locks. */
#include "engine/base/log.h"
#include "engine/stream/apply_impl.h"

typedef struct OwnTable OwnTable;
struct OwnTable {
    OwnTable *next;
    uint64_t serial;
    bool stale; /* described before the last command */
    Table *table;
};

static bool find_own(Lane *lane, const Relation *rel, Table **table, Err *err)
{
    OwnTable *own = lane->tables;

    while (own && (own->stale || own->serial != rel->serial))
        own = own->next;
    if (!own) {
        Table *described;

        if (!lane->applier->ops->describe(lane->applier, rel, &described, err))
            return false;
        own = calloc(1, sizeof(*own));
        if (!own)
            abort();
        *own = (OwnTable){.next = lane->tables, .serial = rel->serial, .table = described};
        lane->tables = own;
    }
    *table = own->table;
    return true;
}

static bool find_table(void *self, const Relation *rel, Table **table, Err *err)
{
    Lane *lane = self;
    const TableSource *shared = &lane->apply->table_source;

    return lane->altered ? find_own(lane, rel, table, err)
                         : shared->table(shared->self, rel, table, err);
}

TableSource lane_tables(Lane *lane)
{
    return (TableSource){lane, find_table};
}

static void free_own(Lane *lane)
{
    while (lane->tables) {
        OwnTable *next = lane->tables->next;

        table_free(lane->tables->table);
        free(lane->tables);
        lane->tables = next;
    }
}

void lane_ddl_begin(Lane *lane)
{
    lane->altered = lane->new_types = lane->new_names = lane->ddl_failed = false;
    lane->ddl_txn = NULL;
    free_own(lane);
}

void lane_ddl_end(Lane *lane)
{
    if (lane->altered)
        apply_forget_tables(lane->apply);
    pthread_mutex_lock(&lane->apply->lock);
    lane->apply->anew |= lane->new_names || (lane->new_types && !lane->apply->conf.text_only);
    pthread_mutex_unlock(&lane->apply->lock);
    lane->altered = lane->new_types = lane->new_names = false;
}

static bool begin_anew(Err *err)
{
    err_code(err, "kb-anew");
    return err_transient(err);
}

/* A type that was made on both sides has two oids, and binary arrays and rows name them. Each can
 * happen once: after it something was committed, or values are text. */
bool lane_ddl_heals(Lane *lane, Err *err)
{
    bool text = lane->new_types && !lane->apply->conf.text_only;

    if (lane->ddl_failed || err->transient || (!lane->apply->anew && !text))
        return false;
    begin_anew(err);
    if (!lane->apply->anew)
        err_code(err, VALUE_FORM);
    return true;
}

bool lane_ddl_goes_on(Apply *apply, Err *err)
{
    if (!apply->anew)
        return true;
    err_fail(err, ERR_TARGET,
             "DDL of the source made types or renamed a schema: the stream begins anew");
    return begin_anew(err);
}

void lane_ddl_free(Lane *lane)
{
    free_own(lane);
    ddl_state_free(lane->ddl);
}

/* --- one command --------------------------------------------------------------------------------
 */

static bool give_up(Lane *lane, const DdlAction *action, const Txn *txn, bool tell, Err *err)
{
    char commit[POSITION_TEXT];

    lane->ddl_failed = true;
    position_text(txn->commit, commit);
    if (tell)
        log_warn("DDL of the source stops the stream", F_STR("ddl", action->what),
                 F_STR("commit", commit), F_STR("statement", action->statement),
                 F_STR("query", action->query), F_STR("why", err->text));
    err_context(err, "DDL of the source, %s", action->what);
    return err_hint(
        err,
        "bring the target to where the source is after all DDL of this transaction by hand, then "
        "start again with --ddl-applied %s%s%.300s",
        commit, *action->statement ? "; the statement is: " : "", action->statement);
}

static bool run(Lane *lane, const DdlAction *action, Err *err)
{
    const ApplierOps *ops = lane->applier->ops;

    if (!ops->ddl(lane->applier, &action->ddl, err))
        return false;
    lane->altered = true;
    lane->new_types |= action->makes_types;
    lane->new_names |= action->renames_schema;
    for (OwnTable *own = lane->tables; own; own = own->next)
        own->stale = true;
    log_info("DDL of the source applied", F_STR("ddl", action->what));
    if (action->makes_table && lane->apply->conf.publishes_list)
        log_warn(
            "a new table, and the publication isn't for all tables: its rows may not be in the stream",
            F_STR("ddl", action->what));
    return true;
}

static bool was_done(const Lane *lane, const Txn *txn)
{
    return !position_is_none(lane->apply->conf.ddl_applied) &&
           position_compare(lane->apply->conf.ddl_applied, txn->commit) == 0;
}

bool lane_ddl(Lane *lane, const Change *change, const Txn *txn, bool tell, Err *err)
{
    DdlAction action;

    if (!lane->ddl)
        lane->ddl = ddl_state_new();
    if (lane->ddl_txn != txn)
        ddl_state_reset(lane->ddl);
    lane->ddl_txn = txn;
    if (!ddl_read(lane->ddl, change->content, &action, err)) {
        lane->ddl_failed = true;
        return false;
    }
    if (action.verdict == DDL_SKIP) {
        if (action.note)
            log_warn("DDL of the source isn't carried", F_STR("ddl", action.what),
                     F_STR("why", action.note));
        return true;
    }
    if (was_done(lane, txn)) {
        log_info("DDL of the source was applied by hand", F_STR("ddl", action.what));
        return true;
    }
    if (action.verdict == DDL_RUN && lane->apply->conf.stop_at_ddl) {
        err_fail(err, ERR_FAITHFUL, "it isn't applied, by --ddl stop");
        return give_up(lane, &action, txn, tell, err);
    }
    if (action.verdict == DDL_STOP) {
        err_fail(err, ERR_FAITHFUL, "%s", action.note);
        return give_up(lane, &action, txn, tell, err);
    }
    if (run(lane, &action, err))
        return true;
    return err->kind == ERR_FAITHFUL ? give_up(lane, &action, txn, tell, err) : false;
}
