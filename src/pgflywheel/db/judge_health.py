"""Facts about judges that tell whether they get on: providers, budgets, prices, labels, examples, embedders."""

from __future__ import annotations

from dataclasses import dataclass

from pgflywheel.db.connect import Database


@dataclass(frozen=True, slots=True)
class Unpriced:
    """An active judge that a budget stops because nobody said what its model costs."""

    validator: str
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class Pool:
    """How many examples wait for a person."""

    quarantined: int
    unsigned: int


async def unpriced(database: Database) -> list[Unpriced]:
    """Return the active judges under a budget whose model has no price; by name."""
    return await database.rows(
        Unpriced,
        """
        with judges as (
          select validator, definition ->> 'provider' as provider, definition ->> 'model' as model
            from flywheel.validator_status where kind = 'judge' and status = 'active')
        select validator, provider, model from judges
         where exists (select from flywheel.budget_status as budgets
                        where budgets.scope = 'project'
                           or (budgets.scope, budgets.name) in (('validator', judges.validator),
                                                                ('provider', judges.provider)))
           and not exists (select from flywheel.provider_models as models
                            where (models.provider, models.model) = (judges.provider, judges.model)
                              and models.input_usd is not null and models.output_usd is not null)
         order by validator
        """,
    )


async def without_labels(database: Database) -> list[str]:
    """Return the active judges, votes of neighbours too, of whose answers no label says whether they are right."""
    return await database.rows(
        str,
        """
        select validator from flywheel.judge_standing
         where status = 'active' and n_pass + n_fail = 0 order by validator
        """,
    )


async def pool(database: Database) -> Pool:
    """Return how many examples are quarantined, and how many wait for a signature."""
    found = await database.row(
        Pool,
        """
        select count(*) filter (where status = 'quarantined') as quarantined,
               count(*) filter (where status = 'candidate') as unsigned
          from flywheel.examples
        """,
    )
    assert found is not None  # an aggregate without group by
    return found
