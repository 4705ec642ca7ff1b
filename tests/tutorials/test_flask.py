"""Flask's patterns "SQLAlchemy in Flask" and "Background Tasks with Celery", made safe."""

import pytest

from tests.tutorials.conftest import Project

DATABASE = """
import os

from sqlalchemy import create_engine
from sqlalchemy.orm import scoped_session, sessionmaker, declarative_base

url = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg2:", 1)
engine = create_engine(url)
db_session = scoped_session(sessionmaker(autocommit=False,
                                         autoflush=False,
                                         bind=engine))
Base = declarative_base()
Base.query = db_session.query_property()

def init_db():
    # import all modules here that might define models so that
    # they will be registered properly on the metadata.
    import task_app.models
    Base.metadata.create_all(bind=engine)
"""

MODELS = """
from sqlalchemy import Column, Integer, String
from task_app.database import Base

class User(Base):
    __tablename__ = 'users'
    id = Column(Integer, primary_key=True)
    name = Column(String(50), unique=True)
    email = Column(String(120), unique=True)

    def __init__(self, name=None, email=None):
        self.name = name
        self.email = email
"""

FACTORY = """
import os

from celery import Celery
from celery import Task
from flask import Flask


def create_app() -> Flask:
    app = Flask(__name__)
    app.config.from_mapping(
        CELERY=dict(
            broker_url=os.environ["BROKER_URL"],
            result_backend=os.environ["BROKER_URL"],
            task_ignore_result=True,
        ),
    )
    app.config.from_prefixed_env()
    celery_init_app(app)

    from . import views
    from .database import db_session

    app.register_blueprint(views.bp)

    @app.teardown_appcontext
    def shutdown_session(exception=None):
        db_session.remove()

    return app


def celery_init_app(app: Flask) -> Celery:
    class FlaskTask(Task):
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app
"""

TASKS = """
from celery import shared_task


@shared_task(ignore_result=False)
def welcome(user_id: int) -> str:
    from .models import User

    return User.query.get(user_id).email
"""

VIEWS = """
from flask import Blueprint
from flask import abort
from flask import request

from . import tasks
from .database import db_session
from .models import User

bp = Blueprint("users", __name__, url_prefix="/users")


@bp.post("/")
def register() -> dict[str, object]:
    user = User(request.form["name"], request.form["email"])
    db_session.add(user)
    db_session.commit()
    result = tasks.welcome.delay(user.id)
    if user.name == "admin":
        abort(409)
    return {"result_id": result.id}
"""

MAKE_CELERY = """
from task_app import create_app

flask_app = create_app()
celery_app = flask_app.extensions["celery"]
"""

REGISTER = """
from task_app import create_app
from task_app.database import init_db

app = create_app()
init_db()
browser = app.test_client()
for name in ("ada", "grace"):
    answer = browser.post("/users/", data={"name": name, "email": name + "@localhost"})
    assert answer.status_code == 200 and answer.json["result_id"]
assert browser.post("/users/", data={"name": "admin", "email": "a"}).status_code == 409
"""


@pytest.mark.parametrize("project", ["flask"], indirect=True)
def test_the_users_are_safe(project: Project) -> None:
    """Users register while the broker is down; they are welcomed when it is there."""
    project.write("task_app/__init__.py", FACTORY)
    project.write("task_app/database.py", DATABASE)
    project.write("task_app/models.py", MODELS)
    project.write("task_app/tasks.py", TASKS)
    project.write("task_app/views.py", VIEWS)
    project.write("make_celery.py", MAKE_CELERY)
    make_safe(project)

    worker = project.proves_safe(REGISTER, tasks=2, app="make_celery")

    assert "Task task_app.tasks.welcome" in worker.output()


def make_safe(project: Project) -> None:
    """What docs/how-to/flask.md says: the class, and a block around what belongs together."""
    factory = "task_app/__init__.py"
    imported = "from celery_outbox import OutboxCelery"
    project.change(
        factory, "from celery import Celery\n", f"{imported}\n", by_the_page="OutboxCelery"
    )
    project.change(factory, "-> Celery:", "-> OutboxCelery:")
    project.change(factory, "= Celery(", "= OutboxCelery(", by_the_page="= OutboxCelery(app.name")
    block = 'with current_app.extensions["celery"].outbox.using('
    project.change(
        "task_app/views.py",
        """\
    db_session.add(user)
    db_session.commit()
    result = tasks.welcome.delay(user.id)
    if user.name == "admin":
        abort(409)
""",
        f"""\
    {block}db_session):
        db_session.add(user)
        db_session.flush()
        result = tasks.welcome.delay(user.id)
        if user.name == "admin":
            abort(409)
        db_session.commit()
""",
        by_the_page=block,
    )
    project.change(
        "task_app/views.py", "import abort\n", "import abort\nfrom flask import current_app\n"
    )
