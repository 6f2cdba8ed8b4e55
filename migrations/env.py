"""Run the revisions on the connection pgflywheel.db.schema hands over; it owns the transaction and the locks."""

from alembic import context

context.configure(
    connection=context.config.attributes.get("connection"),
    dialect_name="postgresql",
    version_table="alembic_version",
    version_table_schema=context.config.attributes["schema"],
    output_buffer=context.config.attributes.get("output"),
    transactional_ddl=False,  # one transaction around everything is already open
)
context.run_migrations()
