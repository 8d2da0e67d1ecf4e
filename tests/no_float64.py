"A device without float64, as Apple's GPUs are: its tensors compute on the CPU, and refuse float64 with the words of MPS."
from contextlib import contextmanager
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("mps")
REFUSAL = "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. Please use float32 instead."

class There(torch.Tensor):
    "A tensor on the device."
    @staticmethod
    def __new__(cls, data):
        return torch.Tensor._make_wrapper_subclass(cls, data.shape, data.stride(), data.storage_offset(), dtype=data.dtype, device="meta",
                                                   requires_grad=data.requires_grad)

    def __init__(self, data): self.data_here = data

    @property
    def device(self): return DEVICE  # meta inside: a build without MPS cannot switch to such a device

    def __repr__(self): return f"There({self.data_here})"

    @property
    def is_meta(self): return False

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None): return run(func, args, kwargs or {})

def here(t): return t.data_here if isinstance(t, There) else t

def there(t):
    if not isinstance(t, torch.Tensor) or isinstance(t, There): return t
    if t.dtype == torch.float64: raise TypeError(REFUSAL)
    return There(t.detach())

def on_device(value): return value is not None and torch.device(value).type in (DEVICE.type, "meta")  # meta: what is made beside a tensor in C++

def run(func, args, kwargs):
    "On the CPU; the result belongs to the device unless the operation names another."
    target = kwargs.get("device")
    found = []
    tree_map(lambda t: found.append(t) if isinstance(t, There) else None, (args, kwargs))
    stays = on_device(target) if target is not None else bool(found)
    inplace = func._schema.name.endswith("_") and args and isinstance(args[0], There)
    plain = {k: torch.device("cpu") if k == "device" and on_device(v) else v for k, v in tree_map(here, kwargs).items()}
    out = func(*tree_map(here, args), **plain)
    if inplace: return args[0]
    return tree_map(there, out) if stays else out

class Made(TorchDispatchMode):
    "Tensors can be made on the device."
    def __torch_dispatch__(self, func, types, args=(), kwargs=None): return run(func, args, kwargs or {})

class Sent(TorchFunctionMode):
    "Tensors can be sent to the device, which a build without MPS refuses."
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not torch.Tensor.to:
            if not on_device(kwargs.get("device")): return func(*args, **kwargs)
            return there(func(*args, **{name: value for name, value in kwargs.items() if name != "device"}))
        t, *rest = args
        rest = [there_too for other in rest for there_too in ((other.device, other.dtype) if isinstance(other, torch.Tensor) else (other,))]
        device = kwargs.get("device", next((a for a in rest if isinstance(a, (str, torch.device))), None))
        if not on_device(device): return func(*args, **kwargs)
        dtype = kwargs.get("dtype", next((a for a in rest if isinstance(a, torch.dtype)), None))
        return there(here(t).to(dtype or t.dtype))

@contextmanager
def device():
    "Inside the `with` block the device is there."
    with Sent(), Made(): yield DEVICE

def moved(model):
    "The model with its weights and buffers on the device."
    for module in model.modules():
        for name, p in [*module._parameters.items()]:
            if p is not None: module._parameters[name] = torch.nn.Parameter(There(p.detach()), requires_grad=False)
        for name, b in [*module._buffers.items()]:
            if b is not None: module._buffers[name] = There(b)
    return model
